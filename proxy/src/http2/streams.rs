//! The open streams of a connection, found by their number.
//!
//! `session` keeps them. Streams open in the order of their numbers (RFC 9113 section 5.1.1), so
//! a sorted list finds them without hashing what a peer chose. It must not know what is counted.

/// Entries that are kept for streams to come once there is none.
const KEEP: usize = 16;

/// The open streams, each with what is known of it.
#[derive(Debug)]
pub struct Streams<T> {
    /// Numbers in ascending order, with the place of each.
    index: Vec<(u32, u32)>,
    places: Vec<Option<T>>,
    free: Vec<u32>,
    /// Where the last one was found: the next event is mostly of the same stream.
    last: Option<(u32, u32)>,
}

impl<T> Default for Streams<T> {
    fn default() -> Self {
        Self {
            index: Vec::new(),
            places: Vec::new(),
            free: Vec::new(),
            last: None,
        }
    }
}

impl<T> Streams<T> {
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes of memory for all of them.
    pub fn held(&self) -> usize {
        let numbers = self.index.capacity() * 2 + self.free.capacity();
        self.places.capacity() * size_of::<Option<T>>() + numbers * size_of::<u32>()
    }

    /// Adds a stream whose number is above all others.
    pub fn push(&mut self, stream: u32, value: T) {
        debug_assert!(self.index.last().is_none_or(|(last, _)| *last < stream));
        let place = self.free.pop().unwrap_or(self.places.len() as u32);
        if place as usize == self.places.len() {
            self.places.push(Some(value));
        } else {
            self.places[place as usize] = Some(value);
        }
        self.index.push((stream, place));
        self.last = Some((stream, place));
    }

    pub fn get_mut(&mut self, stream: u32) -> Option<&mut T> {
        let last = match self.last {
            Some(last) if last.0 == stream => last,
            _ => self.index[self.find(stream)?],
        };
        self.last = Some(last);
        self.places.get_mut(last.1 as usize)?.as_mut()
    }

    pub fn remove(&mut self, stream: u32) -> Option<T> {
        let at = self.find(stream)?;
        Some(self.take(at))
    }

    /// Takes out the streams whose numbers are above this one, the highest first.
    pub fn pop_above(&mut self, stream: u32) -> Option<T> {
        let (highest, _) = self.index.last()?;
        (*highest > stream).then(|| self.take(self.index.len() - 1))
    }

    /// Every stream, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let place = |(stream, place): &(u32, u32)| {
            let value = self.places[*place as usize].as_ref()?;
            Some((*stream, value))
        };
        self.index.iter().filter_map(place)
    }

    fn find(&self, stream: u32) -> Option<usize> {
        self.index.binary_search_by_key(&stream, |(n, _)| *n).ok()
    }

    fn take(&mut self, at: usize) -> T {
        let (_, place) = self.index.remove(at);
        let value = self.places[place as usize].take();
        self.last = None;
        self.free.push(place);
        if self.index.is_empty() && self.places.len() > KEEP {
            *self = Self::default();
        }
        value.expect("an indexed place is taken")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{KEEP, Streams};

    proptest::proptest! {
        #[test]
        fn they_are_a_map(steps in proptest::collection::vec((0u8..4, 0u32..40), 0..200)) {
            let (mut streams, mut model) = (Streams::default(), BTreeMap::new());
            let mut next = 1;
            for (step, n) in steps {
                match step {
                    0 => {
                        streams.push(next, next * 10);
                        model.insert(next, next * 10);
                        next += 1 + n % 3;
                    }
                    1 => proptest::prop_assert_eq!(streams.remove(n), model.remove(&n)),
                    2 => proptest::prop_assert_eq!(streams.get_mut(n), model.get_mut(&n)),
                    _ if n > 30 => {
                        let above = model.split_off(&(n + 1));
                        for (_, value) in above.into_iter().rev() {
                            proptest::prop_assert_eq!(streams.pop_above(n), Some(value));
                        }
                        proptest::prop_assert_eq!(streams.pop_above(n), None);
                    }
                    _ => {}
                }
                let all: Vec<_> = streams.iter().map(|(n, v)| (n, *v)).collect();
                let expected: Vec<_> = model.iter().map(|(n, v)| (*n, *v)).collect();
                proptest::prop_assert_eq!(all, expected);
                proptest::prop_assert_eq!(streams.len(), model.len());
            }
        }
    }

    #[test]
    fn memory_is_given_back_when_the_last_is_gone() {
        let mut streams = Streams::default();
        for n in 1..1000 {
            streams.push(n, ());
        }
        while streams.pop_above(0).is_some() {}
        assert!(streams.places.capacity() <= KEEP);
        assert!(streams.index.capacity() <= KEEP);
    }
}
