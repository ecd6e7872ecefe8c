//! What an export's NQN says.

use meshstor_crds::naming;

/// What a subsystem NQN of ours says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nqn<'a> {
    /// UID of the `MeshReplica`.
    pub leg_uid: &'a str,
    /// Epoch of the grant.
    pub epoch: i64,
    /// Number of the grant.
    pub grant: i64,
}

impl<'a> Nqn<'a> {
    /// Reads an NQN made by [`naming::export_nqn`]; none for a foreign one.
    pub fn parse(nqn: &'a str) -> Option<Self> {
        let mut parts = nqn.strip_prefix(naming::EXPORT_NQN_PREFIX)?.split(':');
        let (leg_uid, epoch, grant) = (parts.next()?, parts.next()?, parts.next()?);
        let number = |part: &str, letter: char| part.strip_prefix(letter)?.parse().ok();
        let found = Self { leg_uid, epoch: number(epoch, 'e')?, grant: number(grant, 'g')? };
        parts.next().is_none().then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_nqn_says_whose_it_is() {
        let nqn = naming::export_nqn("u-1", 7, 3);
        assert_eq!(Nqn::parse(&nqn), Some(Nqn { leg_uid: "u-1", epoch: 7, grant: 3 }));
        assert_eq!(Nqn::parse("nqn.2014-08.org.other:x"), None);
        assert_eq!(Nqn::parse(&format!("{nqn}:more")), None);
    }
}
