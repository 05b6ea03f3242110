//! JSON through `serde`.

use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Presence, Serde, SerdeError, StreamType};
use crate::record::Headers;

/// A value that travels as JSON: `stream::<String, Json<Order>>("orders")`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Json<T>(pub T);

impl<T> Deref for Json<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Json<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// The serde of [`Json`].
#[derive(Debug, Default)]
pub struct JsonSerde;

impl<T: Serialize + DeserializeOwned + 'static> Serde<Json<T>> for JsonSerde {
    fn serialize(
        &self,
        _: &str,
        _: &mut Headers,
        value: &Json<T>,
        out: &mut Vec<u8>,
    ) -> Result<Presence, SerdeError> {
        serde_json::to_writer(out, &value.0).map_err(SerdeError::new)?;
        Ok(Presence::Present)
    }

    fn deserialize(
        &self,
        _: &str,
        _: &Headers,
        bytes: Option<Bytes>,
    ) -> Result<Json<T>, SerdeError> {
        let bytes = bytes.ok_or_else(|| SerdeError::new("null where JSON is needed"))?;
        serde_json::from_slice(&bytes)
            .map(Json)
            .map_err(|error| SerdeError::new(format_args!("not the expected JSON: {error}")))
    }

    fn show(&self, value: &Json<T>) -> serde_json::Value {
        serde_json::to_value(&value.0)
            .unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }))
    }
}

impl<T: Serialize + DeserializeOwned + Clone + Send + 'static> StreamType for Json<T> {
    type Serde = JsonSerde;
}
