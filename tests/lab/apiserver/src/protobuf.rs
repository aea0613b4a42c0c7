//! Requests in Kubernetes' protobuf form, which kubectl's typed clients send from 1.33 on whatever the server says it
//! reads. Read into JSON by a table of field numbers; answers are always JSON, which those clients take.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

use crate::types::{MESSAGES, Message, Shape};

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What every message begins with.
const MAGIC: &[u8] = b"k8s\0";
const DEPTH: usize = 32;

/// Why a body is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("no Kubernetes protobuf message")]
    NoMagic,
    #[error("protobuf message is cut short or malformed")]
    Malformed,
    #[error("{0} is not read as protobuf")]
    UnknownKind(String),
}

/// A value on the wire.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Double(f64),
}

fn varint(input: &mut &[u8]) -> Result<u64, Unreadable> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = input.split_first().ok_or(Unreadable::Malformed)?;
        *input = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Unreadable::Malformed)
}

fn next<'a>(input: &mut &'a [u8]) -> Result<(u64, Wire<'a>), Unreadable> {
    let tag = varint(input)?;
    let take = |input: &mut &'a [u8], count: usize| input.split_off(..count).ok_or(Unreadable::Malformed);
    let wire = match tag & 7 {
        0 => Wire::Number(varint(input)?),
        1 => {
            let bytes = take(input, 8)?.try_into().map_err(|_| Unreadable::Malformed)?;
            Wire::Double(f64::from_le_bytes(bytes))
        }
        2 => {
            let count = usize::try_from(varint(input)?).map_err(|_| Unreadable::Malformed)?;
            Wire::Bytes(take(input, count)?)
        }
        5 => Wire::Bytes(take(input, 4)?),
        _ => return Err(Unreadable::Malformed),
    };
    Ok((tag >> 3, wire))
}

/// Reads a body into JSON.
pub(crate) fn read(body: &[u8]) -> Result<Value, Unreadable> {
    let mut envelope = body.strip_prefix(MAGIC).ok_or(Unreadable::NoMagic)?;
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    while !envelope.is_empty() {
        match next(&mut envelope)? {
            (1, Wire::Bytes(mut types)) => {
                while !types.is_empty() {
                    match next(&mut types)? {
                        (1, Wire::Bytes(text)) => version = String::from_utf8_lossy(text).into_owned(),
                        (2, Wire::Bytes(text)) => kind = String::from_utf8_lossy(text).into_owned(),
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let name = if kind == "DeleteOptions" {
        "meta.DeleteOptions".into()
    } else {
        crate::types::name(group, &kind)
    };
    let found = MESSAGES
        .get(name.as_str())
        .ok_or_else(|| Unreadable::UnknownKind(format!("{version} {kind}")))?;
    let mut object = message(found, raw, DEPTH)?;
    object.insert("apiVersion".into(), version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

fn message(fields: &Message, mut input: &[u8], depth: usize) -> Result<Map<String, Value>, Unreadable> {
    if depth == 0 {
        return Err(Unreadable::Malformed);
    }
    let mut out = Map::new();
    while !input.is_empty() {
        let (number, wire) = next(&mut input)?;
        // A field of a newer release.
        let Some(field) = fields.by_number.get(&number) else {
            continue;
        };
        match field.shape {
            Shape::Map => {
                let Wire::Bytes(entry) = wire else {
                    return Err(Unreadable::Malformed);
                };
                let (key, value) = pair(field.kind, entry, depth)?;
                if let Value::Object(map) = out.entry(field.name).or_insert_with(|| Value::Object(Map::new()))
                {
                    map.insert(key, value);
                }
            }
            Shape::List => {
                let value = value(field.kind, &wire, depth)?;
                if let Value::Array(list) = out.entry(field.name).or_insert_with(|| Value::Array(Vec::new()))
                {
                    list.push(value);
                }
            }
            Shape::Inline => {
                if let Value::Object(members) = value(field.kind, &wire, depth)? {
                    out.extend(members);
                }
            }
            Shape::One | Shape::Pointer => {
                let value = value(field.kind, &wire, depth)?;
                if !value.is_null() && (field.shape == Shape::Pointer || !zero(&value)) {
                    out.insert(field.name.to_owned(), value);
                }
            }
        }
    }
    Ok(out)
}

/// The zero value of a Go type.
fn zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

fn pair(kind: &str, mut entry: &[u8], depth: usize) -> Result<(String, Value), Unreadable> {
    let (mut key, mut found) = (String::new(), None);
    while !entry.is_empty() {
        match next(&mut entry)? {
            (1, Wire::Bytes(text)) => key = String::from_utf8_lossy(text).into_owned(),
            (2, wire) => found = Some(value(kind, &wire, depth)?),
            _ => {}
        }
    }
    let found = match found {
        Some(found) => found,
        None => value(kind, &Wire::Bytes(&[]), depth)?,
    };
    Ok((key, found))
}

fn value(kind: &str, wire: &Wire<'_>, depth: usize) -> Result<Value, Unreadable> {
    Ok(match (kind, wire) {
        ("bool", Wire::Number(number)) => (*number != 0).into(),
        // Negative numbers are written as 64 bits whatever their type.
        ("int32" | "int64" | "uint32" | "uint64", Wire::Number(number)) => number.cast_signed().into(),
        ("double", Wire::Double(number)) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
        ("string", Wire::Bytes(bytes)) => String::from_utf8_lossy(bytes).into(),
        ("bytes", Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        ("meta.Time" | "meta.MicroTime", Wire::Bytes(bytes)) => time(kind, bytes)?,
        ("resource.Quantity", Wire::Bytes(bytes)) => text(bytes, 1)?.into(),
        ("intstr.IntOrString", Wire::Bytes(bytes)) => int_or_string(bytes)?,
        ("meta.FieldsV1" | "runtime.RawExtension", Wire::Bytes(bytes)) => {
            serde_json::from_str(&text(bytes, 1)?).unwrap_or(Value::Null)
        }
        (_, Wire::Bytes(bytes)) => {
            let fields = MESSAGES.get(kind).ok_or(Unreadable::Malformed)?;
            let mut members = message(fields, bytes, depth - 1)?;
            // Lists of strings as values of a map are messages of one field.
            if kind.ends_with(".ExtraValue") || kind == "meta.Verbs" {
                members
                    .remove("items")
                    .unwrap_or_else(|| Value::Array(Vec::new()))
            } else {
                Value::Object(members)
            }
        }
        _ => return Err(Unreadable::Malformed),
    })
}

fn text(mut input: &[u8], wanted: u64) -> Result<String, Unreadable> {
    let mut out = String::new();
    while !input.is_empty() {
        if let (number, Wire::Bytes(bytes)) = next(&mut input)?
            && number == wanted
        {
            out = String::from_utf8_lossy(bytes).into_owned();
        }
    }
    Ok(out)
}

fn numbers(mut input: &[u8]) -> Result<(i64, i64), Unreadable> {
    let mut out = (0, 0);
    while !input.is_empty() {
        match next(&mut input)? {
            (1, Wire::Number(number)) => out.0 = number.cast_signed(),
            (2, Wire::Number(number)) => out.1 = number.cast_signed(),
            _ => {}
        }
    }
    Ok(out)
}

fn time(kind: &str, input: &[u8]) -> Result<Value, Unreadable> {
    let (seconds, nanos) = numbers(input)?;
    if (seconds, nanos) == (0, 0) {
        return Ok(Value::Null);
    }
    let nanos = i32::try_from(nanos).map_err(|_| Unreadable::Malformed)?;
    let at = jiff::Timestamp::new(seconds, nanos).map_err(|_| Unreadable::Malformed)?;
    Ok(match kind {
        "meta.MicroTime" => at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string().into(),
        _ => crate::object::time(at).into(),
    })
}

fn int_or_string(input: &[u8]) -> Result<Value, Unreadable> {
    let (kind, number) = numbers(input)?;
    if kind == 1 {
        Ok(text(input, 3)?.into())
    } else {
        Ok(number.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
    }

    fn enveloped(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let types = [field(1, version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &types), field(2, raw)].concat()
    }

    #[test]
    fn a_config_map_with_empty_and_set_members() {
        let metadata = [
            field(1, b"a"),
            field(2, b""),
            field(8, &[8, 0, 16, 0]),
            vec![7 << 3, 0],
        ]
        .concat();
        let data = [field(1, b"k"), field(2, b"v")].concat();
        let raw = [field(1, &metadata), field(2, &data)].concat();
        assert_eq!(
            read(&enveloped("v1", "ConfigMap", &raw)).unwrap(),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}})
        );
    }

    #[test]
    fn the_zero_of_a_pointer_counts() {
        let raw = [vec![1 << 3, 0], field(4, b"Orphan")].concat();
        assert_eq!(
            read(&enveloped("v1", "DeleteOptions", &raw)).unwrap(),
            json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Orphan"})
        );
    }

    #[test]
    fn every_type_of_the_table_is_in_the_table() {
        let plain = [
            "bool",
            "int32",
            "int64",
            "uint32",
            "uint64",
            "double",
            "string",
            "bytes",
            "meta.Time",
            "meta.MicroTime",
            "resource.Quantity",
            "intstr.IntOrString",
            "meta.FieldsV1",
            "runtime.RawExtension",
        ];
        for field in MESSAGES.values().flat_map(|m| m.by_number.values()) {
            assert!(
                plain.contains(&field.kind) || MESSAGES.contains_key(field.kind),
                "{field:?}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(raw in proptest::collection::vec(proptest::num::u8::ANY, 0..120)) {
            let _ = read(&raw);
            let _ = read(&enveloped("v1", "Pod", &raw));
        }
    }
}
