//! The subject of a certificate, written as Java writes it (RFC 2253), and its alternative names.
//!
//! Certificates come here only after TLS has verified them, but they are read as foreign bytes all
//! the same: every length is checked, and what cannot be read is `None`.
//!
//! ```text
//! Certificate    = SEQUENCE { TBSCertificate, ... }
//! TBSCertificate = SEQUENCE { [0] version OPTIONAL, serial, algorithm, issuer, validity, subject, key,
//!                             [1] OPTIONAL, [2] OPTIONAL, [3] SEQUENCE OF extension OPTIONAL }
//! extension      = SEQUENCE { OBJECT IDENTIFIER, BOOLEAN OPTIONAL, OCTET STRING }
//! Name           = SEQUENCE OF SET OF SEQUENCE { OBJECT IDENTIFIER, value }
//! ```

use std::collections::BTreeSet;
use std::fmt::Write;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const OCTET_STRING: u8 = 0x04;
/// The extension of alternative names, 2.5.29.17.
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 17];

/// Attribute types that RFC 2253 has names for, by their encoded identifiers.
const NAMES: [(&[u8], &str); 9] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
];

/// Returns the subject of a DER certificate, such as `CN=ada,O=Analytical Engines`.
pub fn distinguished_name(certificate: &[u8]) -> Option<String> {
    let mut names = Der(from_subject(certificate)?.take(SEQUENCE)?);
    let mut parts = Vec::new();
    while !names.0.is_empty() {
        let mut attributes = Der(names.take(SET)?);
        let mut part = String::new();
        while !attributes.0.is_empty() {
            let mut attribute = Der(attributes.take(SEQUENCE)?);
            let identifier = attribute.take(OBJECT_IDENTIFIER)?;
            let value = attribute.0;
            if !part.is_empty() {
                part.push('+');
            }
            write_attribute(&mut part, identifier, value)?;
        }
        parts.push(part);
    }
    // The most particular part stands last in the certificate and first in the text.
    parts.reverse();
    Some(parts.join(","))
}

/// The body of a certificate from its subject on.
fn from_subject(certificate: &[u8]) -> Option<Der<'_>> {
    let mut certificate = Der(Der(certificate).take(SEQUENCE)?);
    let mut body = Der(certificate.take(SEQUENCE)?);
    if body.0.first() == Some(&VERSION) {
        body.take(VERSION)?;
    }
    // Serial number, algorithm, issuer, validity.
    for _ in 0..4 {
        body.element()?;
    }
    Some(body)
}

/// Whose a certificate is: its subject and its alternative names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateNames {
    subject: String,
    /// Kind and value, as they are encoded.
    alternatives: BTreeSet<(u8, Vec<u8>)>,
}

impl CertificateNames {
    /// Reads the names of a DER certificate.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let subject = distinguished_name(certificate)?;
        let mut body = from_subject(certificate)?;
        // Subject and key.
        body.element()?;
        body.element()?;
        let mut alternatives = BTreeSet::new();
        while let Some((tag, content)) = body.element() {
            if tag != EXTENSIONS {
                continue;
            }
            let mut extensions = Der(Der(content).take(SEQUENCE)?);
            while !extensions.0.is_empty() {
                let mut extension = Der(extensions.take(SEQUENCE)?);
                if extension.take(OBJECT_IDENTIFIER)? != ALTERNATIVE_NAMES {
                    continue;
                }
                let mut value = extension.element()?;
                if value.0 != OCTET_STRING {
                    // Whether it is critical stood before it.
                    value = extension.element()?;
                }
                let mut names = Der(Der(value.1).take(SEQUENCE)?);
                while !names.0.is_empty() {
                    let (kind, name) = names.element()?;
                    alternatives.insert((kind, name.to_vec()));
                }
            }
        }
        Some(Self { subject, alternatives })
    }

    /// Returns the subject.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Reports whether all alternative names of another certificate are among these.
    pub fn has_alternatives_of(&self, other: &Self) -> bool {
        other.alternatives.is_subset(&self.alternatives)
    }
}

fn write_attribute(part: &mut String, identifier: &[u8], encoded: &[u8]) -> Option<()> {
    let (tag, value) = Der(encoded).element()?;
    let name = NAMES.iter().find(|(known, _)| *known == identifier).map(|(_, name)| name);
    match (name, text(tag, value)) {
        (Some(name), Some(text)) => {
            part.push_str(name);
            part.push('=');
            write_escaped(part, &text);
        }
        _ => {
            write_identifier(part, identifier)?;
            part.push_str("=#");
            for byte in encoded {
                write!(part, "{byte:02x}").ok()?;
            }
        }
    }
    Some(())
}

/// Reads the kinds of text that names are made of.
fn text(tag: u8, value: &[u8]) -> Option<String> {
    match tag {
        // UTF8String, NumericString, PrintableString, IA5String.
        0x0c | 0x12 | 0x13 | 0x16 => Some(std::str::from_utf8(value).ok()?.to_owned()),
        // TeletexString, in practice Latin-1.
        0x14 => Some(value.iter().map(|byte| char::from(*byte)).collect()),
        // BMPString.
        0x1e => {
            let (units, rest) = value.as_chunks::<2>();
            let units: Vec<u16> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
            rest.is_empty().then(|| String::from_utf16(&units).ok())?
        }
        _ => None,
    }
}

fn write_escaped(part: &mut String, text: &str) {
    let last = text.chars().count().saturating_sub(1);
    for (index, character) in text.chars().enumerate() {
        let at_an_end = index == 0 || index == last;
        if matches!(character, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (character == '#' && index == 0)
            || (character == ' ' && at_an_end)
        {
            part.push('\\');
        }
        part.push(character);
    }
}

fn write_identifier(part: &mut String, identifier: &[u8]) -> Option<()> {
    let mut number: u64 = 0;
    let mut is_first = true;
    for byte in identifier {
        number = number.checked_mul(128)?.checked_add(u64::from(byte & 0x7f))?;
        if byte & 0x80 != 0 {
            continue;
        }
        if is_first {
            let root = (number / 40).min(2);
            write!(part, "{root}.{}", number - 40 * root).ok()?;
        } else {
            write!(part, ".{number}").ok()?;
        }
        (number, is_first) = (0, false);
    }
    Some(())
}

/// Bytes that hold one element after another.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Takes the next element's tag and content.
    fn element(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
                (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// Takes the next element's content, if it has this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, content) = self.element()?;
        (found == tag).then_some(content)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag, 0x82];
        bytes.extend((content.len() as u16).to_be_bytes());
        bytes.extend(content);
        bytes
    }

    /// Identifier, tag and text.
    type Attribute<'a> = (&'a [u8], u8, &'a [u8]);

    fn certificate(sets: &[&[Attribute<'_>]]) -> Vec<u8> {
        let mut subject = Vec::new();
        for set in sets {
            let mut content = Vec::new();
            for (identifier, tag, value) in *set {
                let attribute = [element(OBJECT_IDENTIFIER, identifier), element(*tag, value)];
                content.extend(element(SEQUENCE, &attribute.concat()));
            }
            subject.extend(element(SET, &content));
        }
        issued(&subject, &[])
    }

    /// A certificate of a subject, with what comes behind it.
    fn issued(subject: &[u8], rest: &[u8]) -> Vec<u8> {
        let body = [
            &element(VERSION, &[2, 1, 2])[..],
            &element(2, &[1]),
            &element(SEQUENCE, &[]),
            &element(SEQUENCE, &[]),
            &element(SEQUENCE, &[]),
            &element(SEQUENCE, subject),
            rest,
        ];
        element(SEQUENCE, &element(SEQUENCE, &body.concat()))
    }

    /// A certificate of one subject with alternative names, if any.
    fn named(common_name: &[u8], alternatives: &[(u8, &[u8])], is_critical: bool) -> Vec<u8> {
        let attribute = [element(OBJECT_IDENTIFIER, CN), element(0x0c, common_name)];
        let subject = element(SET, &element(SEQUENCE, &attribute.concat()));
        let names: Vec<_> =
            alternatives.iter().flat_map(|(kind, name)| element(*kind, name)).collect();
        let critical = if is_critical { element(1, &[0xff]) } else { Vec::new() };
        let extension = [
            element(OBJECT_IDENTIFIER, ALTERNATIVE_NAMES),
            critical,
            element(OCTET_STRING, &element(SEQUENCE, &names)),
        ];
        let usage = [element(OBJECT_IDENTIFIER, &[0x55, 0x1d, 15]), element(OCTET_STRING, &[3])];
        let extensions =
            [element(SEQUENCE, &usage.concat()), element(SEQUENCE, &extension.concat())];
        let rest =
            [element(SEQUENCE, &[]), element(EXTENSIONS, &element(SEQUENCE, &extensions.concat()))];
        issued(&subject, &rest.concat())
    }

    #[test]
    fn alternative_names_are_a_set_whatever_else_stands_beside_them() {
        const DNS: u8 = 0x82;
        let of = |alternatives: &[(u8, &[u8])], is_critical| {
            CertificateNames::of(&named(b"kafka", alternatives, is_critical)).expect("names")
        };
        let one = of(&[(DNS, b"a.test")], false);
        let two = of(&[(DNS, b"b.test"), (DNS, b"a.test")], true);
        assert_eq!(one.subject(), "CN=kafka");
        assert!(two.has_alternatives_of(&one) && !one.has_alternatives_of(&two));
        assert!(!of(&[(0x87, b"a.test")], false).has_alternatives_of(&one), "an address");
        let none = CertificateNames::of(&named(b"kafka", &[], false)).expect("names");
        assert!(one.has_alternatives_of(&none) && !none.has_alternatives_of(&one));
    }

    const CN: &[u8] = &[0x55, 4, 3];
    const O: &[u8] = &[0x55, 4, 10];
    const EMAIL: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1];

    #[test]
    fn a_subject_reads_as_in_java() {
        let der = certificate(&[&[(O, 0x13, b"Engines, Ltd.")], &[(CN, 0x0c, "Zoë".as_bytes())]]);
        assert_eq!(distinguished_name(&der).as_deref(), Some("CN=Zoë,O=Engines\\, Ltd."));
        let der = certificate(&[&[(CN, 0x1e, b"\0a\0d"), (O, 0x14, b"\xe9")]]);
        assert_eq!(distinguished_name(&der).as_deref(), Some("CN=ad+O=é"));
        let der = certificate(&[&[(CN, 0x0c, b" #a ")], &[(O, 0x0c, b"#b\"")]]);
        assert_eq!(distinguished_name(&der).as_deref(), Some("O=\\#b\\\",CN=\\ #a\\ "));
        assert_eq!(distinguished_name(&certificate(&[])).as_deref(), Some(""));
    }

    #[test]
    fn an_attribute_without_a_name_is_written_in_numbers() {
        let der = certificate(&[&[(EMAIL, 0x16, b"a@b")]]);
        let expected = "1.2.840.113549.1.9.1=#16820003614062";
        assert_eq!(distinguished_name(&der).as_deref(), Some(expected));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            at in 0usize..80,
            byte: u8,
        ) {
            let _ = distinguished_name(&bytes);
            let mut der = certificate(&[&[(CN, 0x0c, b"ada")], &[(EMAIL, 0x16, b"a@b")]]);
            let at = at % der.len();
            der[at] = byte;
            let _ = distinguished_name(&der);
            prop_assert_eq!(distinguished_name(&der[..at]), None);
        }
    }
}
