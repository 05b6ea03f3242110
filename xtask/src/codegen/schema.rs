//! The schema files under `crates/protocol/schemas`: one message each, in a terse text form.
//!
//! `crates/protocol/schemas/README.md` describes the form. Everything doubtful is an error here, so
//! that the emitter can trust what it gets.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};

/// One message.
#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) key: Option<i16>,
    pub(crate) versions: Versions,
    pub(crate) flexible: Versions,
    pub(crate) listeners: Vec<String>,
    pub(crate) unstable_latest: bool,
    /// All structs, the message itself first.
    pub(crate) structs: Vec<Struct>,
}

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Response,
    Header,
    Data,
    Metadata,
    CoordinatorKey,
    CoordinatorValue,
}

/// A struct inside a message.
#[derive(Debug)]
pub(crate) struct Struct {
    pub(crate) name: String,
    /// The versions in which it can occur, cut to those of the message.
    pub(crate) versions: Versions,
    pub(crate) fields: Vec<Field>,
}

/// A field of a struct.
#[derive(Debug)]
pub(crate) struct Field {
    /// Kafka's spelling.
    pub(crate) name: String,
    pub(crate) kind: FieldKind,
    pub(crate) versions: Versions,
    pub(crate) nullable: Versions,
    pub(crate) tag: Option<u32>,
    pub(crate) default: Option<String>,
    pub(crate) ignorable: bool,
    /// Whether the field keeps the old length prefix in flexible versions.
    pub(crate) inflexible: bool,
    /// The line as written, for the documentation of the field.
    pub(crate) line: String,
}

/// The type of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FieldKind {
    Plain(Plain),
    Struct(String),
    Array(Box<FieldKind>),
}

/// A type that is not made of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plain {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint16,
    Uint32,
    Float64,
    Uuid,
    String,
    Bytes,
    Records,
}

/// An inclusive range of versions, possibly empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) min: i16,
    pub(crate) max: i16,
}

impl Versions {
    pub(crate) const NONE: Self = Self { min: 0, max: -1 };

    /// Reads `none`, `3`, `3-5` or `3+`.
    fn parse(text: &str) -> Result<Self> {
        let number = |text: &str| {
            text.parse::<i16>().with_context(|| format!("`{text}` is not a version number"))
        };
        Ok(match text.split_once('-') {
            _ if text == "none" => Self::NONE,
            Some((min, max)) => Self { min: number(min)?, max: number(max)? },
            None => match text.strip_suffix('+') {
                Some(min) => Self { min: number(min)?, max: i16::MAX },
                None => Self { min: number(text)?, max: number(text)? },
            },
        })
    }

    pub(crate) fn is_empty(self) -> bool {
        self.min > self.max
    }

    pub(crate) fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }

    pub(crate) fn covers(self, other: Self) -> bool {
        other.is_empty() || (self.min <= other.min && other.max <= self.max)
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self { min: self.min.max(other.min), max: self.max.min(other.max) }
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = i16> {
        self.min..=self.max
    }
}

impl Schema {
    /// Reads the text of one schema file.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let (kind, name) = first.split_once(' ').context("the first line is `KIND NAME`")?;
        let kind = match kind {
            "request" => Kind::Request,
            "response" => Kind::Response,
            "header" => Kind::Header,
            "data" => Kind::Data,
            "metadata" => Kind::Metadata,
            "coordinator-key" => Kind::CoordinatorKey,
            "coordinator-value" => Kind::CoordinatorValue,
            other => bail!("unknown kind `{other}`"),
        };
        let mut schema = Self {
            kind,
            name: name.to_owned(),
            key: None,
            versions: Versions::NONE,
            flexible: Versions::NONE,
            listeners: Vec::new(),
            unstable_latest: false,
            structs: Vec::new(),
        };
        for line in lines.by_ref().take_while(|line| !line.is_empty()) {
            match line.split_once(' ').unwrap_or((line, "")) {
                ("key", value) => schema.key = Some(value.parse()?),
                ("versions", value) => schema.versions = Versions::parse(value)?,
                ("flexible", value) => schema.flexible = Versions::parse(value)?,
                ("listeners", value) => {
                    schema.listeners = value.split(',').map(str::to_owned).collect();
                }
                ("unstable-latest", "") => schema.unstable_latest = true,
                _ => bail!("unknown property `{line}`"),
            }
        }
        ensure!(!schema.versions.is_empty(), "`versions` is missing");

        let top = Struct { name: schema.name.clone(), versions: schema.versions, fields: vec![] };
        schema.structs.push(top);
        // Indexes of the structs that fields at each depth belong to.
        let mut open = vec![0usize];
        let mut shared = false;
        for line in lines.filter(|line| !line.is_empty()) {
            if let Some(declaration) = line.strip_prefix("struct ") {
                let (name, versions) =
                    declaration.split_once(' ').context("`struct NAME VERSIONS`")?;
                let versions = Versions::parse(versions)?.and(schema.versions);
                schema.structs.push(Struct { name: name.to_owned(), versions, fields: vec![] });
                open = vec![0, schema.structs.len() - 1];
                shared = true;
                continue;
            }
            let depth = (line.len() - line.trim_start().len()) / 2;
            ensure!(depth < open.len() && (depth > 0 || !shared), "wrong indentation: `{line}`");
            open.truncate(depth + 1);
            let owner = open[depth];
            let field = Field::parse(line.trim_start(), schema.structs[owner].versions)
                .with_context(|| format!("in `{line}`"))?;
            // A struct's fields may follow its first mention, indented.
            if let Some(name) = field.kind.struct_name()
                && schema.structs.iter().all(|known| known.name != name)
                && !shared_struct(text, name)
            {
                let (name, versions) = (name.to_owned(), field.versions);
                schema.structs.push(Struct { name, versions, fields: vec![] });
                open.push(schema.structs.len() - 1);
            }
            schema.structs[owner].fields.push(field);
        }
        schema.check()?;
        Ok(schema)
    }

    /// Finds a struct by name.
    pub(crate) fn find(&self, name: &str) -> &Struct {
        self.structs.iter().find(|known| known.name == name).expect("checked when parsed")
    }

    fn check(&self) -> Result<()> {
        for (index, known) in self.structs.iter().enumerate() {
            ensure!(
                self.structs[..index].iter().all(|other| other.name != known.name),
                "struct `{}` occurs twice",
                known.name
            );
            // A mistyped name of a shared struct would otherwise be a new struct without fields.
            ensure!(index == 0 || !known.fields.is_empty(), "`{}` has no fields", known.name);
            let mut tags = BTreeSet::new();
            for field in &known.fields {
                if let Some(name) = field.kind.struct_name() {
                    ensure!(self.structs.iter().any(|s| s.name == name), "no struct `{name}`");
                }
                if let Some(tag) = field.tag {
                    ensure!(tags.insert(tag), "tag {tag} occurs twice in `{}`", known.name);
                    ensure!(
                        self.flexible.covers(field.versions),
                        "`{}` is tagged in a version that is not flexible",
                        field.name
                    );
                }
            }
        }
        Ok(())
    }
}

/// Reports whether a file declares struct `name` apart from the fields that use it.
fn shared_struct(text: &str, name: &str) -> bool {
    text.lines().any(|line| {
        line.strip_prefix("struct ").and_then(|rest| rest.split(' ').next()) == Some(name)
    })
}

impl Field {
    fn parse(line: &str, owner: Versions) -> Result<Self> {
        let mut words = line.split(' ');
        let mut next = || words.next().context("a field is `NAME TYPE VERSIONS ...`");
        let (name, kind) = (next()?.to_owned(), FieldKind::parse(next()?)?);
        let versions = Versions::parse(next()?)?.and(owner);
        let mut field = Self {
            name,
            kind,
            versions,
            nullable: Versions::NONE,
            tag: None,
            default: None,
            ignorable: false,
            inflexible: false,
            line: line.to_owned(),
        };
        for word in words {
            match word.split_once('=').unwrap_or((word, "")) {
                ("nullable", value) => field.nullable = Versions::parse(value)?.and(versions),
                ("tag", value) => field.tag = Some(value.parse()?),
                ("default", value) => field.default = Some(value.to_owned()),
                ("ignorable", "") => field.ignorable = true,
                ("flexible", "none") => field.inflexible = true,
                _ => bail!("unknown attribute `{word}`"),
            }
        }
        Ok(field)
    }
}

impl FieldKind {
    fn parse(text: &str) -> Result<Self> {
        if let Some(element) = text.strip_prefix("[]") {
            return Ok(Self::Array(Box::new(Self::parse(element)?)));
        }
        Ok(Self::Plain(match text {
            "bool" => Plain::Bool,
            "int8" => Plain::Int8,
            "int16" => Plain::Int16,
            "int32" => Plain::Int32,
            "int64" => Plain::Int64,
            "uint16" => Plain::Uint16,
            "uint32" => Plain::Uint32,
            "float64" => Plain::Float64,
            "uuid" => Plain::Uuid,
            "string" => Plain::String,
            "bytes" => Plain::Bytes,
            "records" => Plain::Records,
            name if name.starts_with(|first: char| first.is_ascii_uppercase()) => {
                return Ok(Self::Struct(name.to_owned()));
            }
            other => bail!("unknown type `{other}`"),
        }))
    }

    /// Returns the struct that the type is or consists of.
    pub(crate) fn struct_name(&self) -> Option<&str> {
        match self {
            Self::Struct(name) => Some(name),
            Self::Array(element) => element.struct_name(),
            Self::Plain(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "request PingRequest\nkey 1\nversions 2-5\nflexible 4+\nlisteners broker\n\n";

    fn parse(fields: &str) -> Result<Schema> {
        Schema::parse(&format!("{HEAD}{fields}"))
    }

    #[test]
    fn structs_are_found_wherever_they_are_declared() {
        let schema = parse(
            "Topics []Topic 0+\n  Name string 0-3\n  Parts []Part 3+\nOwn Part 2+\n\nstruct Part 3+\n  Id int32 0+\n",
        )
        .expect("well-formed");
        let names: Vec<_> = schema.structs.iter().map(|item| item.name.as_str()).collect();
        assert_eq!(names, ["PingRequest", "Topic", "Part"]);
        let topic = schema.find("Topic");
        assert_eq!(topic.fields.len(), 2);
        // Versions are cut to those of the message and of the struct.
        assert_eq!(topic.fields[0].versions, Versions { min: 2, max: 3 });
        assert_eq!(schema.find("Part").fields[0].versions, Versions { min: 3, max: 5 });
    }

    #[test]
    fn attributes_are_read() {
        let schema = parse("Rack string 2+ nullable=3+ tag=0 default=null ignorable\n");
        // Tagged in version 2, which is not flexible.
        assert!(schema.is_err());
        let schema = parse("Rack string 4+ nullable=5+ tag=7 default=null ignorable\n");
        let field = &schema.expect("well-formed").structs[0].fields[0];
        assert_eq!((field.tag, field.ignorable, field.inflexible), (Some(7), true, false));
        assert_eq!(field.nullable, Versions { min: 5, max: 5 });
        assert_eq!(field.default.as_deref(), Some("null"));
    }

    #[test]
    fn what_is_doubtful_is_refused() {
        for fields in [
            "Name text 0+\n",
            "Name string\n",
            "Name string 0+ colour=red\n",
            "Topics []Missing 0+\n\nstruct Other 0+\n  Id int32 0+\n",
            "Name string 0+\n    Deep string 0+\n",
            "A int8 4+ tag=0\nB int8 4+ tag=0\n",
        ] {
            assert!(parse(fields).is_err(), "accepted: {fields}");
        }
        assert!(Schema::parse("question PingRequest\nversions 0\n").is_err());
        assert!(Schema::parse("request PingRequest\nkey 1\n").is_err());
    }
}
