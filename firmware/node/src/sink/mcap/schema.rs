//! JSON schemas of the messages that Foxglove has no schema for.

use serde_json::{Value, json};

/// The JSON schema of `loftup.Regions`.
pub fn schema(name: &str) -> Option<Value> {
    let time = json!({
        "type": "object", "title": "time",
        "properties": {
            "sec": {"type": "integer", "minimum": 0},
            "nsec": {"type": "integer", "minimum": 0, "maximum": 999_999_999}
        }
    });
    let count = json!({"type": "integer", "minimum": 0});
    let list = |of: &Value| json!({"type": "array", "items": of});
    let properties = match name {
        "loftup.Regions" => {
            let region = object(json!({
                "class": count, "pixels": count, "x": count, "y": count,
                "width": count, "height": count, "center": list(&count),
            }));
            json!({"timestamp": time, "frame": count, "regions": list(&region)})
        }
        _ => return None,
    };
    let mut schema = object(properties);
    schema["title"] = name.into();
    Some(schema)
}

/// The schema of an object in which all properties are required.
fn object(properties: Value) -> Value {
    let required: Vec<_> = properties
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
        .collect();
    json!({"type": "object", "required": required, "properties": properties})
}
