//! Answers to any request, made from the schemas that the codec is made from: every array has one item, every name is one
//! that was asked for, and each place for an error code can get one.
//!
//! A schema has a field on each line, `Name type versions attributes`; fields of a structure stand below, two spaces
//! further in, or in a section of their own.

use std::collections::HashMap;

use bytes::{BufMut, BytesMut};
use fleuve_protocol::frame::RequestFrame;
use fleuve_protocol::{ApiKey, ErrorCode};

use crate::scripted::{Reply, TOPIC_ID};

/// The response of one API.
pub(super) struct Schema {
    flexible_from: i16,
    fields: Vec<Field>,
    sections: HashMap<String, Vec<Field>>,
}

#[derive(Clone, Debug)]
struct Field {
    name: String,
    kind: String,
    versions: (i16, i16),
    nullable: bool,
    tagged: bool,
    /// Of a structure whose fields stand below.
    children: Vec<Field>,
}

/// An error code and its place, counted in the order of the fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planted {
    pub(super) place: usize,
    pub(super) code: ErrorCode,
}

/// What an answer holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Filling {
    /// An item in each array, and perhaps an error code.
    Whole(Option<Planted>),
    /// Nothing in any array.
    Hollow,
}

impl Schema {
    pub(super) fn of(key: ApiKey) -> Self {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../protocol/schemas");
        let path = format!("{directory}/{}Response.schema", key.name());
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut sections = HashMap::new();
        let mut flexible_from = i16::MAX;
        let mut section = String::new();
        let mut lines: Vec<(usize, Field)> = Vec::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [] | ["response", _] | ["key", _] | ["versions", _] => {}
                ["flexible", from] => flexible_from = range(from).0,
                ["struct", name, _] => {
                    let fields = tree(&lines, usize::from(!section.is_empty()));
                    sections.insert(std::mem::take(&mut section), fields);
                    lines.clear();
                    section = name.to_owned();
                }
                [name, kind, versions, ..] => {
                    let depth = (line.len() - line.trim_start().len()) / 2;
                    let field = Field {
                        name: name.to_owned(),
                        kind: kind.to_owned(),
                        versions: range(versions),
                        nullable: words.iter().any(|word| word.starts_with("nullable=")),
                        tagged: words.iter().any(|word| word.starts_with("tag=")),
                        children: Vec::new(),
                    };
                    lines.push((depth, field));
                }
                _ => panic!("{path}: {line}"),
            }
        }
        let fields = tree(&lines, usize::from(!section.is_empty()));
        sections.insert(section, fields);
        let fields = sections.remove("").expect("the response itself");
        Self { flexible_from, fields, sections }
    }

    /// Returns the names of the places for error codes in an answer of `version`.
    pub(super) fn places(&self, version: i16, filling: Filling) -> Vec<String> {
        let mut answer = self.answer(version, filling);
        answer.write_fields(&self.fields);
        answer.places
    }

    /// Answers `request`.
    pub(super) fn reply(&self, request: &RequestFrame, filling: Filling) -> Reply {
        let version = request.version;
        let mut answer = self.answer(version, filling);
        answer.write_fields(&self.fields);
        let mut frame = BytesMut::new();
        let tagged = request.key.response_header_version(version) > 0;
        frame.put_i32((answer.bytes.len() + 4 + usize::from(tagged)) as i32);
        frame.put_i32(request.correlation_id);
        if tagged {
            frame.put_u8(0);
        }
        frame.extend_from_slice(&answer.bytes);
        Reply::Send(vec![frame.freeze()])
    }

    fn answer(&self, version: i16, filling: Filling) -> Answer<'_> {
        Answer { schema: self, version, filling, bytes: BytesMut::new(), places: Vec::new() }
    }
}

/// An answer being written.
struct Answer<'a> {
    schema: &'a Schema,
    version: i16,
    filling: Filling,
    bytes: BytesMut,
    places: Vec<String>,
}

impl Answer<'_> {
    fn is_flexible(&self) -> bool {
        self.version >= self.schema.flexible_from
    }

    fn write_fields(&mut self, fields: &[Field]) {
        for field in fields {
            let (first, last) = field.versions;
            if (first..=last).contains(&self.version) && !field.tagged {
                match field.kind.strip_prefix("[]") {
                    Some(kind) => self.write_array(field, kind),
                    None => self.write_value(field, &field.kind),
                }
            }
        }
        if self.is_flexible() {
            // No tagged fields.
            self.bytes.put_u8(0);
        }
    }

    fn write_array(&mut self, field: &Field, kind: &str) {
        let count = match self.filling {
            Filling::Whole(_) => 1,
            Filling::Hollow => 0,
        };
        match self.is_flexible() {
            true => self.bytes.put_u8(count as u8 + 1),
            false => self.bytes.put_i32(count),
        }
        for _ in 0..count {
            self.write_value(field, kind);
        }
    }

    fn write_value(&mut self, field: &Field, kind: &str) {
        let name = field.name.as_str();
        match kind {
            "bool" => self.bytes.put_u8(0),
            "int8" => self.bytes.put_i8(1),
            "int16" => {
                let value = self.int16(name);
                self.bytes.put_i16(value);
            }
            "uint16" => self.bytes.put_u16(9092),
            "int32" => self.bytes.put_i32(int32(name)),
            "int64" => self.bytes.put_i64(1),
            "float64" => self.bytes.put_f64(1.0),
            "uuid" => self.bytes.extend_from_slice(&TOPIC_ID.0),
            "string" => self.write_bytes(text(name).as_bytes(), 2),
            "bytes" | "records" => self.write_bytes(b"", 4),
            // It need not be there.
            _ if field.nullable && !field.kind.starts_with("[]") => self.bytes.put_i8(-1),
            structure => {
                let schema = self.schema;
                let section = schema.sections.get(structure);
                let fields = section.unwrap_or(&field.children);
                assert!(!fields.is_empty(), "{structure} is not described");
                self.write_fields(fields);
            }
        }
    }

    fn int16(&mut self, name: &str) -> i16 {
        if !name.ends_with("ErrorCode") {
            return 1;
        }
        let place = self.places.len();
        self.places.push(name.to_owned());
        match self.filling {
            Filling::Whole(Some(planted)) if planted.place == place => planted.code.code(),
            _ => 0,
        }
    }

    fn write_bytes(&mut self, bytes: &[u8], length_size: usize) {
        match (self.is_flexible(), length_size) {
            (true, _) => self.bytes.put_u8(bytes.len() as u8 + 1),
            (false, 2) => self.bytes.put_i16(bytes.len() as i16),
            (false, _) => self.bytes.put_i32(bytes.len() as i32),
        }
        self.bytes.extend_from_slice(bytes);
    }
}

/// Everything that has a number is number 1, partitions are counted from 0, and nobody is asked to wait.
fn int32(name: &str) -> i32 {
    match name {
        "ThrottleTimeMs" => 0,
        "Port" => 9092,
        _ if name.contains("Partition") || name.ends_with("Index") => 0,
        _ => 1,
    }
}

/// Names that the calls in `administering` ask for.
fn text(name: &str) -> &'static str {
    match name {
        "GroupId" => "g",
        "TransactionalId" => "x",
        "MemberId" => "m",
        "User" => "u",
        "Host" | "ClientHost" => "broker",
        // A group that the classic protocol does not know is looked for by the other one.
        "GroupState" => "Dead",
        _ => "t",
    }
}

fn range(text: &str) -> (i16, i16) {
    if text == "none" {
        return (i16::MAX, i16::MAX);
    }
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text}"));
    match (text.strip_suffix('+'), text.split_once('-')) {
        (Some(first), _) => (number(first), i16::MAX),
        (None, Some((first, last))) => (number(first), number(last)),
        (None, None) => (number(text), number(text)),
    }
}

/// Puts fields below those that they stand under.
fn tree(lines: &[(usize, Field)], depth: usize) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for (index, (at, field)) in lines.iter().enumerate() {
        if *at == depth {
            let below = &lines[index + 1..];
            let end = below.iter().position(|(at, _)| *at <= depth).unwrap_or(below.len());
            let children = tree(&below[..end], depth + 1);
            fields.push(Field { children, ..field.clone() });
        }
    }
    fields
}
