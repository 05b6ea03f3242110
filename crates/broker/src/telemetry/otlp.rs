//! Reading OpenTelemetry's `MetricsData`, as far as clients send it.
//!
//! Messages are read one point after the other from the bytes they arrived in. A library such as
//! prost would build the whole tree first, in which an empty message of two bytes becomes a
//! structure of a hundred: a push of a mebibyte would take a hundred.
//!
//! ```text
//! MetricsData      1 ResourceMetrics*
//! ResourceMetrics  2 ScopeMetrics*
//! ScopeMetrics     2 Metric*
//! Metric           1 name   5 Gauge | 7 Sum
//! Gauge, Sum       1 NumberDataPoint*   (Sum) 2 temporality, 1 for delta
//! NumberDataPoint  7 KeyValue*   4 double | 6 sfixed64
//! KeyValue         1 key   2 AnyValue
//! AnyValue         1 string | 2 bool | 3 varint | 4 double
//! ```
//!
//! Other kinds of metrics (histograms, summaries) are left out; Kafka's clients send none.

/// Attributes of one point; more are left out.
const ATTRIBUTES_MAX: usize = 16;

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Point<'a> {
    /// The metric's name.
    pub(crate) name: &'a str,
    /// What it is about.
    pub(crate) attributes: Vec<(&'a str, String)>,
    /// The value.
    pub(crate) value: f64,
    /// Whether the value is to be added to those before it.
    pub(crate) is_delta: bool,
    /// Whether it is a total.
    pub(crate) is_sum: bool,
}

/// Reports bytes that are no such message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an OpenTelemetry message: {0}")]
pub(crate) struct OtlpError(&'static str);

/// Calls `visit` with every point.
pub(crate) fn read<'a>(data: &'a [u8], mut visit: impl FnMut(Point<'a>)) -> Result<(), OtlpError> {
    each(data, |field| match field {
        Field(1, Wire::Bytes(resource)) => each(resource, |field| match field {
            Field(2, Wire::Bytes(scope)) => each(scope, |field| match field {
                Field(2, Wire::Bytes(metric)) => read_metric(metric, &mut visit),
                _ => Ok(()),
            }),
            _ => Ok(()),
        }),
        _ => Ok(()),
    })
}

fn read_metric<'a>(metric: &'a [u8], visit: &mut impl FnMut(Point<'a>)) -> Result<(), OtlpError> {
    const GAUGE: u64 = 5;
    const SUM: u64 = 7;
    const DELTA: u64 = 1;
    // Fields may come in any order, and every point needs the name.
    let mut name = "";
    each(metric, |field| {
        if let Field(1, Wire::Bytes(bytes)) = field {
            name = text(bytes)?;
        }
        Ok(())
    })?;
    each(metric, |field| {
        let Field(kind @ (GAUGE | SUM), Wire::Bytes(points)) = field else { return Ok(()) };
        let mut temporality = 0;
        each(points, |field| {
            if let Field(2, Wire::Varint(number)) = field {
                temporality = number;
            }
            Ok(())
        })?;
        let is_sum = kind == SUM;
        each(points, |field| {
            let Field(1, Wire::Bytes(point)) = field else { return Ok(()) };
            if let Some((attributes, value)) = read_point(point)? {
                let is_delta = is_sum && temporality == DELTA;
                visit(Point { name, attributes, value, is_delta, is_sum });
            }
            Ok(())
        })
    })
}

type PointParts<'a> = (Vec<(&'a str, String)>, f64);

fn read_point(point: &[u8]) -> Result<Option<PointParts<'_>>, OtlpError> {
    let mut attributes = Vec::new();
    let mut value = None;
    each(point, |field| {
        match field {
            Field(4, Wire::Fixed64(bits)) => value = Some(f64::from_bits(bits)),
            Field(6, Wire::Fixed64(bits)) => value = Some(bits as i64 as f64),
            Field(7, Wire::Bytes(pair)) if attributes.len() < ATTRIBUTES_MAX => {
                attributes.extend(read_attribute(pair)?);
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(value.map(|value| (attributes, value)))
}

fn read_attribute(pair: &[u8]) -> Result<Option<(&str, String)>, OtlpError> {
    let mut key = "";
    let mut value = None;
    each(pair, |field| {
        match field {
            Field(1, Wire::Bytes(bytes)) => key = text(bytes)?,
            Field(2, Wire::Bytes(any)) => each(any, |field| {
                value = match field {
                    Field(1, Wire::Bytes(bytes)) => Some(text(bytes)?.to_owned()),
                    Field(2, Wire::Varint(number)) => Some((number != 0).to_string()),
                    Field(3, Wire::Varint(number)) => Some((number as i64).to_string()),
                    Field(4, Wire::Fixed64(bits)) => Some(f64::from_bits(bits).to_string()),
                    _ => return Ok(()),
                };
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(value.map(|value| (key, value)))
}

fn text(bytes: &[u8]) -> Result<&str, OtlpError> {
    std::str::from_utf8(bytes).map_err(|_| OtlpError("a text is not UTF-8"))
}

/// A field: its number and what it holds.
struct Field<'a>(u64, Wire<'a>);

/// What a field holds, by protobuf's wire types.
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// Calls `visit` with every field of a message.
fn each<'a>(
    mut message: &'a [u8],
    mut visit: impl FnMut(Field<'a>) -> Result<(), OtlpError>,
) -> Result<(), OtlpError> {
    const CUT: OtlpError = OtlpError("it ends within a field");
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let wire = match tag & 7 {
            0 => Wire::Varint(varint(&mut message)?),
            1 => {
                let (head, rest) = message.split_first_chunk().ok_or(CUT)?;
                message = rest;
                Wire::Fixed64(u64::from_le_bytes(*head))
            }
            2 => {
                let length = usize::try_from(varint(&mut message)?).map_err(|_| CUT)?;
                let (head, rest) = message.split_at_checked(length).ok_or(CUT)?;
                message = rest;
                Wire::Bytes(head)
            }
            5 => {
                message = message.get(4..).ok_or(CUT)?;
                Wire::Fixed32
            }
            _ => return Err(OtlpError("it has a field of an unknown wire type")),
        };
        visit(Field(tag >> 3, wire))?;
    }
    Ok(())
}

fn varint(bytes: &mut &[u8]) -> Result<u64, OtlpError> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or(OtlpError("it ends within a number"))?;
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(OtlpError("a number is too long"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        assert!(bytes.len() < 1 << 14);
        let length = bytes.len();
        let mut out = vec![number << 3 | 2, (length & 0x7f) as u8 | 0x80, (length >> 7) as u8];
        out.extend(bytes);
        out
    }

    fn fixed(number: u8, bits: u64) -> Vec<u8> {
        let mut out = vec![number << 3 | 1];
        out.extend(bits.to_le_bytes());
        out
    }

    /// A push with a gauge of 2.5 about a topic, and a delta sum of 7.
    pub(crate) fn push() -> Vec<u8> {
        let attribute = [field(1, b"topic"), field(2, &field(1, b"orders"))].concat();
        let gauge_point = [field(7, &attribute), fixed(4, 2.5_f64.to_bits())].concat();
        let gauge = [field(5, &field(1, &gauge_point)), field(1, b"lag.max")].concat();
        let sum_points = [field(1, &fixed(6, 7)), vec![2 << 3, 1]].concat();
        let sum = [field(1, b"records.total"), field(7, &sum_points)].concat();
        let scope = [field(2, &gauge), field(2, &sum), field(3, b"schema")].concat();
        field(1, &field(2, &scope))
    }

    fn points(data: &[u8]) -> Result<Vec<(String, f64, bool)>, OtlpError> {
        let mut points = Vec::new();
        read(data, |point| {
            let labels: String =
                point.attributes.iter().map(|(key, value)| format!(" {key}={value}")).collect();
            points.push((format!("{}{labels}", point.name), point.value, point.is_delta));
        })?;
        Ok(points)
    }

    #[test]
    fn gauges_and_sums_are_read() {
        let expected = [
            ("lag.max topic=orders".to_owned(), 2.5, false),
            ("records.total".to_owned(), 7.0, true),
        ];
        assert_eq!(points(&push()), Ok(expected.to_vec()));
        assert_eq!(points(&[]), Ok(Vec::new()));
    }

    #[test]
    fn damage_is_an_error_or_another_message_and_never_a_panic() {
        let whole = push();
        for length in 1..whole.len() {
            assert!(points(&whole[..length]).is_err(), "{length}");
        }
        for position in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[position] ^= 1 << bit;
                let read = points(&damaged);
                assert!(read.is_err() || read.is_ok_and(|points| points.len() <= 2));
            }
        }
    }
}
