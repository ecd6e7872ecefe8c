//! The table of all cases, and which of them a run takes.

use super::{Case, Fault, Moment, Victim};

/// Cases that one fault of one node makes at once, each on a volume of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// What happens.
    pub fault: Fault,
    /// To whom.
    pub victim: Victim,
    /// A volume for each.
    pub moments: Vec<Moment>,
}

/// Why a combination is not in the table; `None` for those that are.
pub fn left_out(case: Case) -> Option<&'static str> {
    let short = matches!(case.moment, Moment::Attach | Moment::Detach);
    (case.victim == Victim::Targets && short).then_some(
        "an attach or a detach is over when the second of two targets fails, seconds after the first: \
         that is the case of one target and, after it, that of an idle volume",
    )
}

/// The table: every other combination.
pub fn cases() -> Vec<Case> {
    let all = Fault::ALL.into_iter().flat_map(|fault| {
        Victim::ALL.into_iter().flat_map(move |victim| Moment::ALL.map(move |moment| Case { fault, victim, moment }))
    });
    all.filter(|case| left_out(*case).is_none()).collect()
}

/// The batches of the table, with the cases whose name contains `filter`.
pub fn batches(filter: &str) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for case in cases().into_iter().filter(|case| case.to_string().contains(filter)) {
        match batches.last_mut() {
            Some(last) if last.fault == case.fault && last.victim == case.victim => last.moments.push(case.moment),
            _ => batches.push(Batch { fault: case.fault, victim: case.victim, moments: vec![case.moment] }),
        }
    }
    batches
}

/// So many batches by a seed, or all in order. Seeds that follow one another take batches that do, so that all are taken in time.
pub fn choose(batches: &[Batch], seed: u64, count: usize) -> Vec<Batch> {
    let length = batches.len();
    if count >= length {
        return batches.to_vec();
    }
    // Neighbours in a run differ in fault and victim; prime to the number of batches, so that none is left out.
    let stride = (8..).find(|stride| gcd(*stride, length) == 1).unwrap_or(1);
    let turn = seed % u64::try_from(length).unwrap_or(1);
    let first = usize::try_from(turn).unwrap_or(0) * count;
    (first..first + count).filter_map(|n| batches.get(n * stride % length).cloned()).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_value_of_each_dimension_meets_each_of_the_others_that_it_can() {
        let all = cases();
        assert_eq!(all.len(), 91);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 91);
        let pairs = |pick: fn(&Case) -> (String, String)| all.iter().map(pick).collect::<BTreeSet<_>>().len();
        assert_eq!(pairs(|c| (c.fault.to_string(), c.victim.to_string())), 21);
        assert_eq!(pairs(|c| (c.fault.to_string(), c.moment.to_string())), 35);
        assert_eq!(pairs(|c| (c.victim.to_string(), c.moment.to_string())), 13);
    }

    #[test]
    fn a_filter_takes_what_it_names() {
        let one = batches("one-way/consumer/load");
        assert_eq!(one, [Batch { fault: Fault::OneWay, victim: Victim::Consumer, moments: vec![Moment::Load] }]);
        assert_eq!(batches("").len(), 21);
        assert_eq!(batches("/resync").iter().map(|b| b.moments.len()).collect::<Vec<_>>(), [1; 21]);
        assert!(batches("nothing").is_empty());
    }

    #[test]
    fn seeds_rotate_through_all_batches() {
        let all = batches("");
        let taken: Vec<Batch> = (40..40 + 21).flat_map(|seed| choose(&all, seed, 4)).collect();
        for batch in &all {
            assert_eq!(taken.iter().filter(|b| *b == batch).count(), 4, "{batch:?}");
        }
        for seed in 0..21 {
            let chosen = choose(&all, seed, 4);
            assert!(chosen.iter().map(|b| b.victim.to_string()).collect::<BTreeSet<_>>().len() >= 2, "{chosen:?}");
            assert_eq!(chosen.iter().map(|b| b.fault.to_string()).collect::<BTreeSet<_>>().len(), 4, "{chosen:?}");
        }
        assert_eq!(choose(&all, 3, 99), all);
        assert_eq!(choose(&[], 3, 4), []);
    }
}
