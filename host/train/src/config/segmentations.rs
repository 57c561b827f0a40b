//! `data.segmentation`: one table, or an array of tables.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Segmentation;

/// Segmentations by color, at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct Segmentations(pub Vec<Segmentation>);

impl Default for Segmentations {
    fn default() -> Self {
        Self(vec![Segmentation::default()])
    }
}

impl Serialize for Segmentations {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [one] => one.serialize(s),
            several => several.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for Segmentations {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TableOrArray)
    }
}

struct TableOrArray;

impl<'de> de::Visitor<'de> for TableOrArray {
    type Value = Segmentations;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a table or an array of tables")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let one = Segmentation::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Ok(Segmentations(vec![one]))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        let several = Vec::deserialize(de::value::SeqAccessDeserializer::new(seq))?;
        if several.is_empty() {
            return Err(de::Error::custom(
                "data.segmentation is empty: write at least one",
            ));
        }
        Ok(Segmentations(several))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{ColorSpace, Config, Segmentation};

    fn parse(data: &str) -> Result<Config, String> {
        let text =
            format!("bundle = \"b\"\nout = \"o\"\nstage = 1\n[data]\npaths = [\"p\"]\n{data}");
        Config::parse(&text, Path::new("t.toml")).map_err(|e| e.to_string())
    }

    #[test]
    fn a_table_an_array_and_neither() {
        let published = Segmentation::default();
        let seen = |data: &str| parse(data).unwrap().data.segmentation.0;
        assert_eq!(seen(""), [published]);
        let scale = |scale: f32| Segmentation { scale, ..published };
        assert_eq!(seen("[data.segmentation]\nscale = 20"), [scale(20.0)]);
        let two = "[[data.segmentation]]\nscale = 20\n[[data.segmentation]]\ncolor_space = \"lab\"";
        let lab = Segmentation {
            color_space: ColorSpace::Lab,
            ..published
        };
        assert_eq!(seen(two), [scale(20.0), lab]);
        for data in ["", "[data.segmentation]\nscale = 20", two] {
            let config = parse(data).unwrap();
            let again = Config::parse(&config.complete(), Path::new("again.toml")).unwrap();
            assert_eq!(again.data.segmentation, config.data.segmentation);
        }
        let errors = [
            ("segmentation = []", "write at least one"),
            ("segmentation = 3", "a table or an array of tables"),
            ("[[data.segmentation]]\nsize = 3", "size"),
            (
                "[data.segmentation]\nleast = 3",
                "data.segmentation.min_area",
            ),
            (
                "[[data.segmentation]]\n[[data.segmentation]]\nscale = 0",
                "data.segmentation.scale",
            ),
        ];
        for (data, part) in errors {
            let message = parse(data).unwrap_err();
            assert!(message.contains(part), "{data}: {message}");
        }
    }
}
