//! Recursive file search.

use std::{
    collections::{HashSet, VecDeque},
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

/// The contents of one folder, sorted by name.
#[derive(Debug)]
pub struct Folder {
    /// The files, and links to files, with their lengths in bytes.
    pub files: Vec<(PathBuf, u64)>,
    /// Entries that cannot be used, such as dangling links, with the error.
    pub unusable: Vec<(PathBuf, io::Error)>,
}

/// Searches folders recursively. Each real folder is searched once, whatever links point to it:
/// links to folders are followed after everything that is reachable without them.
#[derive(Debug)]
pub struct Walk<'a> {
    stop: &'a AtomicBool,
    seen: HashSet<Identity>,
    folders: Vec<PathBuf>,
    links: VecDeque<PathBuf>,
    repeated: usize,
}

/// Identifies a real folder: device and inode.
#[cfg(unix)]
type Identity = (u64, u64);
/// Identifies a real folder: its canonical path.
#[cfg(not(unix))]
type Identity = PathBuf;

#[cfg(unix)]
fn identity(_: &Path, metadata: &Metadata) -> io::Result<Identity> {
    use std::os::unix::fs::MetadataExt;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path, _: &Metadata) -> io::Result<Identity> {
    path.canonicalize()
}

impl<'a> Walk<'a> {
    /// A search without folders. Once `stop` is true, it returns nothing more.
    pub fn new(stop: &'a AtomicBool) -> Self {
        Self {
            stop,
            seen: HashSet::new(),
            folders: Vec::new(),
            links: VecDeque::new(),
            repeated: 0,
        }
    }

    /// Searches this folder next, unless it has already been searched.
    pub fn add(&mut self, folder: PathBuf) {
        self.folders.push(folder);
    }

    /// Number of times that an already searched folder was found again.
    pub fn repeated(&self) -> usize {
        self.repeated
    }

    /// The contents of the next folder; `None` at the end, or if the search was stopped.
    ///
    /// # Errors
    /// The folder that cannot be read, with the error.
    pub fn next_folder(&mut self) -> Option<Result<Folder, (PathBuf, io::Error)>> {
        while !self.stop.load(Ordering::Relaxed) {
            let path = self.folders.pop().or_else(|| self.links.pop_front())?;
            match self.is_new(&path) {
                Ok(true) => return Some(self.list(&path).map_err(|error| (path, error))),
                Ok(false) => self.repeated += 1,
                Err(error) => return Some(Err((path, error))),
            }
        }
        None
    }

    fn is_new(&mut self, path: &Path) -> io::Result<bool> {
        let identity = identity(path, &fs::metadata(path)?)?;
        Ok(self.seen.insert(identity))
    }

    fn list(&mut self, path: &Path) -> io::Result<Folder> {
        let mut folder = Folder {
            files: Vec::new(),
            unusable: Vec::new(),
        };
        let mut links = Vec::new();
        for entry in fs::read_dir(path)? {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let entry = entry?;
            let path = entry.path();
            // Links count as what they point to.
            match fs::metadata(&path) {
                Ok(m) if m.is_file() => folder.files.push((path, m.len())),
                Ok(m) if m.is_dir() && entry.file_type()?.is_symlink() => links.push(path),
                Ok(m) if m.is_dir() => self.folders.push(path),
                Ok(_) => {}
                Err(error) => folder.unusable.push((path, error)),
            }
        }
        folder.files.sort_unstable();
        folder.unusable.sort_by(|a, b| a.0.cmp(&b.0));
        links.sort_unstable();
        self.links.extend(links);
        Ok(folder)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(roots: &[&Path]) -> (Vec<PathBuf>, usize) {
        let stop = AtomicBool::new(false);
        let mut walk = Walk::new(&stop);
        let mut found = Vec::new();
        for root in roots {
            walk.add(root.to_path_buf());
            while let Some(folder) = walk.next_folder() {
                found.extend(folder.unwrap().files.into_iter().map(|(path, _)| path));
            }
        }
        found.sort();
        (found, walk.repeated())
    }

    #[test]
    fn each_real_folder_is_searched_once() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("far.png"), "far").unwrap();
        fs::create_dir_all(at("real/deeper")).unwrap();
        for file in ["top.png", "real/one.png", "real/deeper/two.png"] {
            fs::write(at(file), "x").unwrap();
        }
        let expected = [
            "a-far/far.png",
            "real/deeper/two.png",
            "real/one.png",
            "top.png",
        ];
        // Loops, a link to a folder that is searched anyway, and the only path to another folder.
        for (to, link) in [
            (".", "a"),
            (".", "b"),
            ("..", "real/up"),
            ("real", "aa"),
            ("..", "real/deeper/up"),
        ] {
            symlink(to, at(link)).unwrap();
        }
        symlink(outside.path(), at("a-far")).unwrap();
        let (found, repeated) = names(&[root.path()]);
        assert_eq!(found, expected.map(at));
        assert_eq!(repeated, 5);
        let (found, _) = names(&[root.path(), &at("real"), root.path()]);
        assert_eq!(found, expected.map(at), "folders inside each other");
    }

    #[test]
    fn what_cannot_be_used_is_named_and_a_stop_ends_it() {
        let root = tempfile::tempdir().unwrap();
        symlink("absent", root.path().join("dangling.png")).unwrap();
        let stop = AtomicBool::new(false);
        let mut walk = Walk::new(&stop);
        walk.add(root.path().into());
        walk.add(root.path().join("nowhere"));
        let (path, _) = walk.next_folder().unwrap().unwrap_err();
        assert!(path.ends_with("nowhere"));
        let folder = walk.next_folder().unwrap().unwrap();
        assert!(folder.files.is_empty());
        assert!(folder.unusable[0].0.ends_with("dangling.png"));
        assert!(walk.next_folder().is_none());
        walk.add("/".into());
        stop.store(true, Ordering::Relaxed);
        assert!(walk.next_folder().is_none());
    }
}
