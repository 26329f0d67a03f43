//! Lists of ports as annotations write them: `25,3306,8000-8010`, and names where the object declares some.
//! Used by `pod`, `service` and `config`. What cannot be read is passed over: of a pod, the webhook has told the author,
//! and of the flag `config` does.

/// Ports and ranges of ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(Box<[(u16, u16)]>);

impl Ports {
    /// Reads a list; `named` knows the ports that have a name. What cannot be read is passed over.
    pub fn parse(list: &str, named: impl Fn(&str) -> Option<u16>) -> Self {
        Self(items(list).filter_map(|item| range(item, &named)).collect())
    }

    /// What of a list without names cannot be read.
    pub fn unreadable(list: &str) -> impl Iterator<Item = &str> {
        items(list).filter(|item| range(item, &|_| None).is_none())
    }

    /// Whether the list has this port.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&port))
    }
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

/// One port is a range, too.
fn range(item: &str, named: &impl Fn(&str) -> Option<u16>) -> Option<(u16, u16)> {
    let (first, last) = match item.split_once('-') {
        Some((first, last)) if first.parse::<u16>().is_ok() => (first, last),
        _ => (item, item),
    };
    let port = |text: &str| text.trim().parse().ok().or_else(|| named(text));
    let (first, last) = (port(first)?, port(last)?);
    (first > 0 && first <= last).then_some((first, last))
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
        let unreadable: Vec<_> = Ports::unreadable("25, 8000-8010,mysql-x,,9-1,0,70000").collect();
        assert_eq!(unreadable, ["mysql-x", "9-1", "0", "70000"]);
    }
}
