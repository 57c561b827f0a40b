//! The text encoder on the CPU.

use std::{path::Path, thread};

use loftup_import::{
    checkpoint::Checkpoint,
    text::{EMBEDDING, POOL, TOKENS, TextConfig, TextConfigFiles, TextEncoder, TextOptions},
};
use loftup_runtime::backend::{BackendError, CpuBackend, Session, compile_once};

use crate::{Templates, WordsError, text_tokenizer::TextTokenizer};

/// Progress: stage, steps done, total steps.
pub type Progress<'a> = &'a mut dyn FnMut(&str, usize, usize);

/// Number of texts per run of the graph.
const BATCH: usize = 8;

/// A text encoder and its tokenizer.
pub struct Encoder {
    text: TextEncoder,
    tokenizer: TextTokenizer,
    file: String,
    sha256: String,
}

impl Encoder {
    /// Reads the text encoder of CLIP or SigLIP from a checkpoint of the whole model or of its text encoder.
    /// `prefix` selects one of several. `tokenizer` is SigLIP's `tokenizer.json`; CLIP's tokenizer is built
    /// in.
    ///
    /// # Errors
    /// The checkpoint cannot be read or contains no text encoder, its activation is unknown, or the
    /// tokenizer is missing, cannot be read, or does not belong to the text encoder.
    pub fn open(
        path: &Path,
        prefix: Option<&str>,
        options: &TextOptions,
        tokenizer: Option<&Path>,
    ) -> Result<Self, WordsError> {
        let mut checkpoint = Checkpoint::open(path)?;
        if let Some(prefix) = prefix {
            checkpoint = checkpoint.within(prefix)?;
        }
        let files = TextConfigFiles::next_to(path)?;
        let text = TextEncoder::from_checkpoint(&checkpoint, options, &files)?;
        let tokenizer = TextTokenizer::of(text.config(), path, tokenizer)?;
        Ok(Self {
            text,
            tokenizer,
            file: path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into(),
            sha256: checkpoint.sha256().unwrap_or_default(),
        })
    }

    /// The configuration of the text encoder.
    pub fn config(&self) -> &TextConfig {
        self.text.config()
    }

    /// Name of its file, without directories.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// SHA-256 of its file.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Computes the directions of `words`, `[words, dim]`: the normalized mean of the normalized embeddings of
    /// each word in all templates.
    ///
    /// # Errors
    /// There are no words, a word is empty or too long, or the engine fails.
    pub fn embed(
        &self,
        words: &[String],
        templates: &Templates,
        threads: usize,
        progress: Progress<'_>,
    ) -> Result<Vec<f32>, WordsError> {
        let mut texts = Vec::with_capacity(words.len() * templates.len());
        for word in words {
            if word.trim().is_empty() {
                return Err(WordsError::Words("a word is empty".into()));
            }
            for text in templates.of(word) {
                texts.push(self.tokenizer.encode(&text, self.config().context)?);
            }
        }
        if texts.is_empty() {
            return Err(WordsError::Words("there are no words".into()));
        }
        let embeddings = self.run(&texts, threads, progress)?;
        let dim = self.config().dim;
        let mut means = Vec::with_capacity(words.len() * dim);
        for of_word in embeddings.chunks_exact(templates.len() * dim) {
            let mut sum = vec![0.0; dim];
            for embedding in of_word.chunks_exact(dim) {
                let embedding = normalized(embedding.iter().map(|x| f64::from(*x)).collect())?;
                sum.iter_mut().zip(embedding).for_each(|(s, x)| *s += x);
            }
            means.extend(normalized(sum)?.into_iter().map(|x| x as f32));
        }
        Ok(means)
    }

    /// Computes the embeddings of tokenized texts, `[texts, dim]`.
    fn run(
        &self,
        texts: &[Vec<u32>],
        threads: usize,
        progress: Progress<'_>,
    ) -> Result<Vec<f32>, WordsError> {
        let TextConfig { width, dim, .. } = *self.config();
        let batch = BATCH.min(texts.len());
        // CLIP does not attend to padding, so the length of the longest text is enough; texts of SigLIP all
        // have the same length.
        let length = texts.iter().map(Vec::len).max().unwrap_or(1);
        progress("compiling the text encoder", 0, 1);
        let plan = compile_once(
            &CpuBackend,
            &self.file,
            self.text.graph(batch, length),
            &[
                (TOKENS, &[batch, length, width]),
                (POOL, &[batch, 1, length]),
            ],
            &[EMBEDDING],
        )?;
        let batches: Vec<&[Vec<u32>]> = texts.chunks(batch).collect();
        let mut sessions = (0..threads.clamp(1, batches.len()))
            .map(|_| plan.session())
            .collect::<Result<Vec<_>, _>>()?;
        let mut embeddings = Vec::with_capacity(texts.len() * dim);
        for round in batches.chunks(sessions.len()) {
            progress("encoding the words", embeddings.len() / dim, texts.len());
            let results: Vec<_> = thread::scope(|scope| {
                let workers: Vec<_> = round
                    .iter()
                    .zip(&mut sessions)
                    .map(|(texts, session)| {
                        scope.spawn(|| self.run_batch(session.as_mut(), texts, batch, length))
                    })
                    .collect();
                workers.into_iter().map(|worker| worker.join()).collect()
            });
            for result in results {
                match result {
                    Ok(values) => embeddings.extend(values?),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        }
        progress("encoding the words", texts.len(), texts.len());
        Ok(embeddings)
    }

    fn run_batch(
        &self,
        session: &mut dyn Session,
        texts: &[Vec<u32>],
        batch: usize,
        length: usize,
    ) -> Result<Vec<f32>, WordsError> {
        let (mut tokens, mut pool) = (Vec::new(), Vec::new());
        // The last batch is padded with its last text.
        for i in 0..batch {
            let text = &texts[i.min(texts.len() - 1)];
            self.text.embed(text, length, &mut tokens, &mut pool)?;
        }
        let run = |session: &mut dyn Session| -> Result<(), BackendError> {
            session.set(0, &tokens)?;
            session.set(1, &pool)?;
            session.run()
        };
        run(session)?;
        Ok(session.output(0)[..texts.len() * self.config().dim].to_vec())
    }
}

fn normalized(mut values: Vec<f64>) -> Result<Vec<f64>, WordsError> {
    let norm = values.iter().map(|x| x * x).sum::<f64>().sqrt();
    if !norm.is_finite() || norm == 0.0 {
        return Err(WordsError::Words(format!(
            "an embedding has length {norm}: the text encoder's weights are unusable"
        )));
    }
    values.iter_mut().for_each(|x| *x /= norm);
    Ok(values)
}
