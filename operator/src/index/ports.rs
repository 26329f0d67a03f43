//! Lists of ports as annotations write them: `25,3306,8000-8010`, and names where the object declares some.
//! Used by `pod` and `service`. It judges nothing: of a
//! pod, the webhook has told the author what cannot be read.

/// Ports and ranges of ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(Box<[(u16, u16)]>);

impl Ports {
    /// Reads a list; `named` knows the ports that have a name. What cannot be read is passed over.
    pub fn parse(list: &str, named: impl Fn(&str) -> Option<u16>) -> Self {
        let items = list.split(',').map(str::trim);
        let ranges = items.filter_map(|item| {
            let (first, last) = match item.split_once('-') {
                Some((first, last)) if first.parse::<u16>().is_ok() => (first, last),
                _ => (item, item),
            };
            let port = |text: &str| text.trim().parse().ok().or_else(|| named(text));
            Some((port(first)?, port(last)?))
        });
        Self(
            ranges
                .filter(|(first, last)| *first > 0 && first <= last)
                .collect(),
        )
    }

    /// Whether the list has this port.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_numbers_ranges_and_names() {
        let named = |name: &str| (name == "mysql-x").then_some(33060);
        let ports = Ports::parse("25, 8000-8010,mysql-x,,nothing,9-1,0,70000", named);
        for (port, inside) in [
            (25, true),
            (26, false),
            (7999, false),
            (8000, true),
            (8010, true),
            (8011, false),
            (33060, true),
            (9, false),
            (0, false),
        ] {
            assert_eq!(ports.contains(port), inside, "{port}");
        }
        assert_eq!(Ports::parse("", named), Ports::default());
    }
}
