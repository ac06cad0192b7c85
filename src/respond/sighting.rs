//! Values that were seen in public.

use jiff::Timestamp;

use crate::keyformat::KeyValue;
use crate::store::Place;

/// Value of a possible key, seen in public.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// String that was seen. [`Responder::report`](super::Responder::report) determines whether it is a known key.
    pub value: KeyValue,
    /// Place where it was seen.
    pub place: Place,
    /// Time of the detection.
    pub detected_at: Timestamp,
}
