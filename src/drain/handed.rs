//! What a daemon that stops sending to a destination leaves to the one that sends next. It lies with the
//! lease of the destination, which does not read it.

/// The pace of a destination as one daemon leaves it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Handed {
    /// Batches per second.
    pub rate: f64,
    /// The rate at which a speed limit was met last.
    pub ceiling: Option<f64>,
    /// The rate still doubles.
    pub ramps: bool,
    /// Batches that could be sent at once.
    pub permits: u32,
}

const VERSION: u8 = 1;

impl Handed {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.ramps)];
        out.extend(self.rate.to_be_bytes());
        out.extend(self.ceiling.unwrap_or(0.0).to_be_bytes());
        out.extend(self.permits.to_be_bytes());
        out
    }

    /// `None`: another version wrote it, or nobody did.
    pub(super) fn decode(text: &[u8]) -> Option<Self> {
        let (&[version, ramps], rest) = text.split_first_chunk()?;
        let (rate, rest) = rest.split_first_chunk()?;
        let (ceiling, rest) = rest.split_first_chunk()?;
        let permits = rest.try_into().ok()?;
        let (rate, ceiling) = (f64::from_be_bytes(*rate), f64::from_be_bytes(*ceiling));
        let sound = version == VERSION && rate.is_finite() && rate > 0.0 && ceiling.is_finite();
        sound.then_some(Self {
            rate,
            ceiling: Some(ceiling).filter(|ceiling| *ceiling > 0.0),
            ramps: ramps == 1,
            permits: u32::from_be_bytes(permits),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_comes_back_and_what_is_something_else_does_not() {
        for ceiling in [None, Some(200.5)] {
            let handed = Handed {
                rate: 269.5,
                ceiling,
                ramps: ceiling.is_none(),
                permits: 41,
            };
            let text = handed.encode();
            assert_eq!(Handed::decode(&text), Some(handed));
            let nan = Handed {
                rate: f64::NAN,
                ..handed
            };
            for wrong in [
                &b""[..],
                &text[..text.len() - 1],
                &[&[VERSION + 1], &text[1..]].concat(),
                &[&text[..], &[0]].concat(),
                &nan.encode(),
            ] {
                assert_eq!(Handed::decode(wrong), None, "{wrong:?}");
            }
        }
    }
}
