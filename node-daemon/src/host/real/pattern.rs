//! Shell patterns for device nodes: `*`, `?`, `[a-c]`, `[!a]`. Pure.

/// Whether all of `text` matches `pattern`; `*` does not match `/`.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    rest(&pattern, &text)
}

fn rest(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        (['*', tail @ ..], _) => {
            rest(tail, text) || text.split_first().is_some_and(|(c, more)| *c != '/' && rest(pattern, more))
        }
        (['?', tail @ ..], [c, more @ ..]) => *c != '/' && rest(tail, more),
        (['[', set @ ..], [c, more @ ..]) => set
            .iter()
            .skip(1)
            .position(|p| *p == ']')
            .is_some_and(|end| in_set(&set[..=end], *c) && rest(&set[end + 2..], more)),
        ([p, tail @ ..], [c, more @ ..]) => p == c && rest(tail, more),
        _ => false,
    }
}

fn in_set(set: &[char], c: char) -> bool {
    let (not, set) = match set {
        ['!' | '^', set @ ..] if !set.is_empty() => (true, set),
        set => (false, set),
    };
    let ranges = set.windows(3).any(|w| w[1] == '-' && (w[0]..=w[2]).contains(&c));
    (ranges || set.contains(&c)) != not
}

#[cfg(test)]
mod tests {
    use super::matches;
    use proptest::prelude::*;

    #[test]
    fn patterns_of_drives() {
        assert!(matches("/dev/ubd?", "/dev/ubda"));
        assert!(!matches("/dev/ubd?", "/dev/ubda1"));
        assert!(matches("/dev/nvme?n1", "/dev/nvme0n1"));
        assert!(matches("/dev/nvme*n1", "/dev/nvme12n1"));
        assert!(matches("/dev/sd[a-c]", "/dev/sdb"));
        assert!(!matches("/dev/sd[!a-c]", "/dev/sdb"));
        assert!(!matches("/dev/*", "/dev/disk/x"));
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_a_star(name in "[a-z0-9]{0,12}") {
            prop_assert!(matches(&name, &name) && matches("*", &name));
        }

        #[test]
        fn any_pattern_ends(pattern in "[a*?\\[\\]!-]{0,10}", name in "[a-c]{0,10}") {
            let _ = matches(&pattern, &name);
        }
    }
}
