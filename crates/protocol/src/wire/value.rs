//! How each type stands on the wire.
//!
//! ```text
//! int8..int64, uint16, uint32, float64   big-endian
//! bool                                   one byte, 0 or 1
//! uuid                                   16 bytes
//! string                                 length i16 or compact, UTF-8
//! bytes, records                         length i32 or compact, bytes
//! array                                  count i32 or compact, elements
//! nullable struct                        one byte (-1 null, 1 present), struct
//! nullable struct as a tagged field      unsigned varint (0 null, 1 present), struct
//! compact length                         unsigned varint of length + 1; 0 is null
//! ```

use bytes::Bytes;
use fleuve_types::Uuid;

use super::{DecodeError, Field, Reader, Str, Version, Writer};

/// A type with a place on the wire.
///
/// Not to be implemented outside this crate: messages are generated from schemas.
#[doc(hidden)]
pub trait Wire: Sized {
    /// Fewest bytes that a value takes in any version; never 0, because the number of elements of
    /// an array is checked against it.
    const MIN_SIZE: usize;

    /// Takes a value out of `r`.
    fn read(r: &mut Reader, v: Version, field: Field) -> Result<Self, DecodeError>;

    /// Writes the value to `w`, which remembers what could not be written.
    fn write(&self, w: &mut Writer, v: Version, field: Field);
}

/// A struct of a message, as opposed to a plain value.
///
/// Only structs have the presence byte in front when they are nullable.
#[doc(hidden)]
pub trait Struct: Wire {}

macro_rules! fixed {
    ($($type:ty)*) => {$(
        impl Wire for $type {
            const MIN_SIZE: usize = size_of::<$type>();

            #[inline]
            fn read(r: &mut Reader, _: Version, field: Field) -> Result<Self, DecodeError> {
                r.fixed(field).map(<$type>::from_be_bytes)
            }

            fn write(&self, w: &mut Writer, _: Version, _: Field) {
                w.write_slice(&self.to_be_bytes());
            }
        }
    )*};
}

fixed!(i8 i16 i32 i64 u16 u32 f64);

impl Wire for bool {
    const MIN_SIZE: usize = 1;

    fn read(r: &mut Reader, _: Version, field: Field) -> Result<Self, DecodeError> {
        r.read_i8(field).map(|byte| byte != 0)
    }

    fn write(&self, w: &mut Writer, _: Version, _: Field) {
        w.write_i8(i8::from(*self));
    }
}

impl Wire for Uuid {
    const MIN_SIZE: usize = 16;

    fn read(r: &mut Reader, _: Version, field: Field) -> Result<Self, DecodeError> {
        r.fixed(field).map(Uuid)
    }

    fn write(&self, w: &mut Writer, _: Version, _: Field) {
        w.write_slice(&self.0);
    }
}

impl Wire for Str {
    const MIN_SIZE: usize = 1;

    fn read(r: &mut Reader, v: Version, field: Field) -> Result<Self, DecodeError> {
        r.text(v, field)?.ok_or_else(|| r.null(v, field))
    }

    fn write(&self, w: &mut Writer, v: Version, field: Field) {
        w.text(Some(self), v, field);
    }
}

impl Wire for Option<Str> {
    const MIN_SIZE: usize = 1;

    fn read(r: &mut Reader, v: Version, field: Field) -> Result<Self, DecodeError> {
        r.text(v, field)
    }

    fn write(&self, w: &mut Writer, v: Version, field: Field) {
        w.text(self.as_ref(), v, field);
    }
}

impl Wire for Bytes {
    const MIN_SIZE: usize = 1;

    fn read(r: &mut Reader, v: Version, field: Field) -> Result<Self, DecodeError> {
        Option::read(r, v, field)?.ok_or_else(|| r.null(v, field))
    }

    fn write(&self, w: &mut Writer, v: Version, field: Field) {
        w.length(Some(self.len()), v, field);
        w.write_shared(self);
    }
}

impl Wire for Option<Bytes> {
    const MIN_SIZE: usize = 1;

    fn read(r: &mut Reader, v: Version, field: Field) -> Result<Self, DecodeError> {
        match r.length(v, field)? {
            Some(length) => r.read_bytes(length, field).map(Some),
            None => Ok(None),
        }
    }

    fn write(&self, w: &mut Writer, v: Version, field: Field) {
        match self {
            Some(bytes) => w.put(bytes, v, field),
            None => w.length(None, v, field),
        }
    }
}

impl<T: Wire> Wire for Vec<T> {
    const MIN_SIZE: usize = 1;

    fn read(r: &mut Reader, v: Version, field: Field) -> Result<Self, DecodeError> {
        r.elements(v, field)?.ok_or_else(|| r.null(v, field))
    }

    fn write(&self, w: &mut Writer, v: Version, field: Field) {
        w.length(Some(self.len()), v, field);
        for element in self {
            w.put(element, v, field);
        }
    }
}

impl<T: Wire> Wire for Option<Vec<T>> {
    const MIN_SIZE: usize = 1;

    fn read(r: &mut Reader, v: Version, field: Field) -> Result<Self, DecodeError> {
        r.elements(v, field)
    }

    fn write(&self, w: &mut Writer, v: Version, field: Field) {
        match self {
            Some(elements) => w.put(elements, v, field),
            None => w.length(None, v, field),
        }
    }
}

impl<T: Struct> Wire for Option<T> {
    const MIN_SIZE: usize = 1;

    fn read(r: &mut Reader, v: Version, field: Field) -> Result<Self, DecodeError> {
        if r.read_i8(field)? < 0 { Ok(None) } else { r.get(v, field).map(Some) }
    }

    fn write(&self, w: &mut Writer, v: Version, field: Field) {
        w.write_i8(if self.is_some() { 1 } else { -1 });
        if let Some(value) = self {
            w.put(value, v, field);
        }
    }
}
