//! Prompt templates.

use std::path::Path;

use crate::WordsError;

/// CLIP's 80 templates for ImageNet.
const IMAGENET: &str = include_str!("../../../models/clip/templates.txt");

/// The placeholder of the word in a template.
const PLACE: &str = "{}";

/// Prompt templates such as "a photo of a {}.". The mean over many of them depends more on the word and
/// less on the sentence than a single one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates(Vec<String>);

impl Templates {
    /// The 80 templates that CLIP's authors used for ImageNet.
    pub fn imagenet() -> Self {
        Self(IMAGENET.lines().map(str::to_owned).collect())
    }

    /// Reads templates from a text file, one per line.
    ///
    /// # Errors
    /// The file cannot be read, has no templates, or a line does not contain `{}` exactly once.
    pub fn read(path: &Path) -> Result<Self, WordsError> {
        let wrong = |what: String| WordsError::File {
            path: path.into(),
            what,
        };
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
        let mut templates = Vec::new();
        for (i, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
            if line.matches(PLACE).count() != 1 {
                return Err(wrong(format!(
                    "line {}: {line:?} must contain {{}} once, where the word goes",
                    i + 1
                )));
            }
            templates.push(line.to_owned());
        }
        if templates.is_empty() {
            return Err(wrong(
                "contains no templates; expected one per line, as in: a photo of a {}.".into(),
            ));
        }
        Ok(Self(templates))
    }

    /// The number of templates.
    #[allow(clippy::len_without_is_empty, reason = "there is at least one")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the templates with `word` inserted.
    pub fn of<'a>(&'a self, word: &'a str) -> impl Iterator<Item = String> + 'a {
        self.0.iter().map(move |t| t.replacen(PLACE, word, 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_templates_have_one_place_each() {
        let templates = Templates::imagenet();
        assert_eq!(templates.len(), 80);
        assert!(templates.0.iter().all(|t| t.matches(PLACE).count() == 1));
        let first = templates.of("mug").next().unwrap();
        assert_eq!(first, "a bad photo of a mug.");
    }

    #[test]
    fn templates_come_from_a_file() {
        let directory = std::env::temp_dir().join(format!("loftup-words-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("templates.txt");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Templates::read(&path).map_err(|e| e.to_string())
        };
        let two = read("\u{feff}a {}.\n\n  the {} on a table\r\n").unwrap();
        assert_eq!(
            two.of("cup").collect::<Vec<_>>(),
            ["a cup.", "the cup on a table"]
        );
        for (text, part) in [
            ("a {}\nnothing", "line 2"),
            ("{} and {}", "line 1"),
            ("\n \n", "no templates"),
        ] {
            let message = read(text).unwrap_err();
            assert!(
                message.contains(part) && message.contains("templates.txt"),
                "{message}"
            );
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
