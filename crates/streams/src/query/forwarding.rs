//! Questions that are passed on to the instance that can answer them.

use serde_json::Value;

use super::face::Question;
use super::{Ask, JsonReply, Position, Rows};

impl Ask {
    /// The path under which another instance is asked for one partition.
    pub(crate) fn path_to(&self, partition: i32) -> String {
        let mut path = format!("/stores/{}", encoded(&self.store));
        let mut parameters = vec!["routed=true".to_owned(), format!("partition={partition}")];
        match &self.question {
            Question::Key(key) => path += &format!("/key/{}", encoded(key)),
            Question::Range { from, to } => {
                path += "/range";
                parameters.extend(from.iter().map(|from| format!("from={}", encoded(from))));
                parameters.extend(to.iter().map(|to| format!("to={}", encoded(to))));
            }
            Question::Versions { key, from_ms, to_ms } => {
                path += &format!("/versions/{}", encoded(key));
                parameters.extend([format!("from={from_ms}"), format!("to={to_ms}")]);
            }
            Question::Windows { key, from_ms, to_ms } => {
                path += "/windows";
                path.extend(key.iter().map(|key| format!("/{}", encoded(key))));
                parameters.extend([format!("from={from_ms}"), format!("to={to_ms}")]);
            }
        }
        parameters.push(format!("limit={}&reverse={}", self.limit, self.reversed));
        if self.is_stale_enough {
            parameters.push("stale=true".to_owned());
        }
        let bound: Vec<String> = self
            .bound
            .iter()
            .map(|(topic, partition, offset)| format!("{topic}:{partition}:{offset}"))
            .collect();
        if !bound.is_empty() {
            parameters.push(format!("at_least={}", bound.join(",")));
        }
        format!("{path}?{}", parameters.join("&"))
    }

    /// Reads what another instance answered.
    pub(crate) fn read_reply(&self, reply: JsonReply) -> Result<Rows, JsonReply> {
        let position = Position::from_json(&reply.json["position"]);
        match (reply.status, &self.question) {
            (200, Question::Key(_)) => {
                let mut row = reply.json;
                if let Some(row) = row.as_object_mut() {
                    row.remove("position");
                }
                Ok(Rows { rows: vec![row], position, more: false })
            }
            (404, Question::Key(_)) if reply.json["error"] == "not_found" => {
                Ok(Rows { rows: Vec::new(), position, more: false })
            }
            (200, _) => {
                let rows = reply.json["rows"].as_array().cloned().unwrap_or_default();
                Ok(Rows { rows, position, more: reply.json["more"] == true })
            }
            _ => Err(reply),
        }
    }
}

impl Position {
    pub(crate) fn from_json(json: &Value) -> Self {
        let mut position = Self::default();
        for (topic, partitions) in json.as_object().into_iter().flatten() {
            for (partition, offset) in partitions.as_object().into_iter().flatten() {
                if let (Ok(partition), Some(offset)) = (partition.parse(), offset.as_i64()) {
                    position.reach(&topic.as_str().into(), partition, offset);
                }
            }
        }
        position
    }
}

/// Text that can stand in a path or a parameter.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Request;
    use super::*;

    fn ask(path: &str) -> Ask {
        match Request::parse(path) {
            Some(Ok(Request::Ask(ask))) => ask,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn what_is_passed_on_asks_the_same_of_one_partition() {
        for path in [
            "/stores/a/key/x%2Fy%20%25?at_least=in:0:7,in:1:8",
            "/stores/a/range?from=%C3%A4&limit=5&reverse=true",
            "/stores/a/windows/k?from=-5&to=10",
            "/stores/a/windows",
            "/stores/a/key/x?stale=true",
        ] {
            let asked = ask(path);
            let passed_on = ask(&asked.path_to(3));
            assert_eq!(passed_on, Ask { partition: Some(3), routed: true, ..asked }, "{path}");
        }
    }
}
