//! Kubernetes quantities as bytes.

/// Why a capacity is not one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum QuantityError {
    /// It does not parse.
    #[error("read capacity {0:?}: not a quantity; write it like 10Gi or 512Mi")]
    Syntax(String),
    /// It parses, but is no whole number of bytes that fits 63 bits.
    #[error("read capacity {0:?}: not a whole number of bytes below 8Ei")]
    Range(String),
}

/// Bytes of a Kubernetes quantity such as `512Mi`, `1.5Gi`, `1G`, `1e9`.
///
/// # Errors
/// [`QuantityError`] when it is not a non-negative whole number of bytes.
pub fn bytes(text: &str) -> Result<u64, QuantityError> {
    let syntax = || QuantityError::Syntax(text.to_owned());
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '+')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let number = number.strip_prefix('+').unwrap_or(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 19 || fraction.len() > 9 {
        return Err(syntax());
    }
    let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| syntax())?;
    let scale = multiplier(suffix).ok_or_else(syntax)?;
    let product = digits.checked_mul(scale).ok_or_else(|| QuantityError::Range(text.to_owned()))?;
    let divisor = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| syntax())?);
    match (product % divisor, i64::try_from(product / divisor)) {
        (0, Ok(value)) => u64::try_from(value).map_err(|_| syntax()),
        _ => Err(QuantityError::Range(text.to_owned())),
    }
}

/// The suffixes of <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.
fn multiplier(suffix: &str) -> Option<u128> {
    let binary = |power: u32| Some(1u128 << (10 * power));
    let decimal = |power: u32| Some(10u128.pow(power));
    match suffix {
        "" => Some(1),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            exponent.parse().ok().filter(|power| *power <= 18).and_then(decimal)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_api_server_reads() {
        for (text, want) in
            [("64Mi", 64 << 20), ("1.5Gi", 3 << 29), ("1G", 1_000_000_000), ("1e3", 1000), ("5", 5), ("0.5Ki", 512)]
        {
            assert_eq!(bytes(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_whole_number_of_bytes() {
        for text in ["", ".", "x", "1.5", "0.3Ki", "-1", "1Q", "99999999999Ei", "1e99", "1.2.3"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in ".{0,40}") {
            let _ = bytes(&text);
        }
    }
}
