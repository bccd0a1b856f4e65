//! Data sets: a folder of class folders, or a CSV of pictures with masks or texts with rationales; and for what asks for no labels, a
//! folder of pictures or a file of texts.

use super::mask::Mask;
use crate::error::{Error, Result};
use crate::explanation::TextLayout;
use crate::input::text::Text;
use crate::input::Input;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// One input.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// As reports name it.
    pub name: String,
    /// What is explained; an array `[B,3,H,W]` stands for B inputs.
    pub content: Input,
    /// The label as written: a name or a class number; none where the data have no labels.
    pub label: Option<String>,
    /// A mask of the object.
    pub mask: Option<MaskFile>,
    /// The reason people marked: character ranges `10-15`, or passages of the (first) text, separated by semicolons.
    pub rationale: Option<String>,
}

/// Where a mask is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MaskFile {
    /// The picture that holds it.
    pub path: PathBuf,
    /// The value of the object in it, as written; none: see the rules of [`super::mask`].
    pub object: Option<String>,
}

impl MaskFile {
    /// Reads it.
    ///
    /// # Errors
    /// As [`Mask::read`], and for a value that is no whole number.
    pub fn read(&self) -> Result<Mask> {
        let number = |text: &String| {
            text.parse::<u32>().map_err(|_| {
                Error::Input(format!("mask {}: mask_value `{text}` is no whole number", self.path.display()))
            })
        };
        Mask::read(&self.path, self.object.as_ref().map(number).transpose()?)
    }
}

/// A data set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Data {
    /// Its inputs.
    pub samples: Vec<Sample>,
    /// What of the folder or table was left out, a phrase each.
    pub left_out: Vec<String>,
    /// Inputs that cannot be read, with the reason.
    pub failures: Vec<(String, String)>,
}

impl Data {
    /// Whether it is of texts.
    ///
    /// # Errors
    /// [`Error::Usage`] for texts and pictures in one data set.
    pub fn texts(&self, path: &Path) -> Result<bool> {
        let texts = self.samples.iter().filter(|s| s.content.is_text()).count();
        match texts {
            0 => Ok(false),
            n if n == self.samples.len() => Ok(true),
            _ => Err(Error::Usage(format!("--data {}: texts and pictures in one data set", path.display()))),
        }
    }
}

/// Reads a data set.
///
/// # Errors
/// [`Error::Usage`] for a path that is neither, a CSV without the columns it needs, or no sample at all.
pub fn read(path: &Path) -> Result<Data> {
    filled(path, if path.is_dir() { folders(path)? } else { table(path, true)? }, "labelled input")
}

/// Reads a data set that need not have labels: of a folder without a class folder all pictures or texts, of a `.txt` file a text a
/// line, of a table without that column its paths or texts. Everything else is read as [`read`] does.
///
/// # Errors
/// As [`read`].
pub fn read_any(path: &Path) -> Result<Data> {
    let lines = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("txt"));
    let data = match path.is_dir() {
        false if lines => lines_of(path)?,
        false => table(path, false)?,
        true => Some(folders(path)?).filter(|data| !data.samples.is_empty()).unwrap_or_else(|| unlabelled(path)),
    };
    filled(path, data, "input")
}

/// Refuses data without a sample.
fn filled(path: &Path, data: Data, what: &str) -> Result<Data> {
    if !data.samples.is_empty() {
        return Ok(data);
    }
    let left_out = if data.left_out.is_empty() { String::new() } else { format!(" ({})", data.left_out.join("; ")) };
    Err(Error::Usage(format!("--data {}: no {what} in it{left_out}", path.display())))
}

/// All pictures or texts in a folder and in the folders in it, whatever these are called.
pub fn unlabelled(root: &Path) -> Data {
    let (mut found, mut files) = (Found::default(), Vec::new());
    found.walk(root, &mut Vec::new(), &mut files);
    let sample = |(file, content): (PathBuf, Input)| {
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        Sample { name, content, label: None, mask: None, rationale: None }
    };
    Data { samples: files.into_iter().map(sample).collect(), left_out: found.left_out(), failures: Vec::new() }
}

/// A text a line; lines without a letter are none.
fn lines_of(path: &Path) -> Result<Data> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let mut data = Data::default();
    for (number, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let name = format!("line {}", number + 1);
        match std::str::from_utf8(line).map(str::trim) {
            Ok("") => {}
            Ok(line) => {
                let content = Input::Text(Text { first: line.into(), second: None });
                data.samples.push(Sample { name, content, label: None, mask: None, rationale: None });
            }
            Err(_) => data.failures.push((name, "is not UTF-8 text".into())),
        }
    }
    Ok(data)
}

/// A folder whose folders are the classes; what lies deeper belongs to the class above it.
fn folders(root: &Path) -> Result<Data> {
    let mut data = Data::default();
    let mut found = Found::default();
    let own = root.canonicalize().unwrap_or_else(|_| root.to_path_buf());
    for class in sorted(root)? {
        if !class.is_dir() {
            found.outside += 1;
            continue;
        }
        let label = class.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut files = Vec::new();
        found.walk(&class, &mut vec![own.clone()], &mut files);
        for (file, content) in files {
            let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
            let label = Some(label.clone());
            data.samples.push(Sample { name, content, label, mask: None, rationale: None });
        }
    }
    data.left_out = found.left_out();
    Ok(data)
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?;
    let mut paths = entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>();
    if let Ok(paths) = &mut paths {
        paths.sort();
    }
    paths.map_err(|e| Error::io(folder, e))
}

/// What class folders hold besides inputs.
#[derive(Default)]
struct Found {
    /// Files beside the class folders.
    outside: usize,
    /// Files of other endings.
    others: Vec<PathBuf>,
    /// Pipes, devices, dangling links: reading them could wait for ever.
    irregular: Vec<PathBuf>,
    /// Folders that cannot be listed.
    closed: Vec<String>,
}

impl Found {
    /// All inputs of a folder and of the folders in it; `above` are the folders it lies in, so that a link to one of them is
    /// not followed for ever.
    fn walk(&mut self, folder: &Path, above: &mut Vec<PathBuf>, files: &mut Vec<(PathBuf, Input)>) {
        let own = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
        if above.contains(&own) {
            return;
        }
        let entries = match sorted(folder) {
            Ok(entries) => entries,
            Err(e) => return self.closed.push(e.to_string()),
        };
        above.push(own);
        for path in entries {
            match (path.is_dir(), path.is_file(), Input::of_file(&path)) {
                (true, _, _) => self.walk(&path, above, files),
                (false, false, _) => self.irregular.push(path),
                (false, true, None) => self.others.push(path),
                (false, true, Some(content)) => files.push((path, content)),
            }
        }
        above.pop();
    }

    fn left_out(&self) -> Vec<String> {
        let ending = |p: &PathBuf| p.extension().map_or("no ending".into(), |e| format!(".{}", e.to_string_lossy()));
        let endings: BTreeSet<String> = self.others.iter().map(ending).collect();
        let name = |p: &PathBuf| p.display().to_string();
        let mut all = Vec::new();
        if !self.others.is_empty() {
            let endings: Vec<_> = endings.into_iter().collect();
            all.push(format!("{} of other endings: {}", counted(self.others.len()), endings.join(", ")));
        }
        if let Some(first) = self.irregular.first() {
            all.push(format!("{} not regular, such as {}", counted(self.irregular.len()), name(first)));
        }
        if self.outside > 0 {
            all.push(format!("{} beside the class folders", counted(self.outside)));
        }
        all.extend(self.closed.iter().map(|c| format!("a folder that cannot be read: {c}")));
        all
    }
}

fn counted(files: usize) -> String {
    if files == 1 {
        "1 file".into()
    } else {
        format!("{files} files")
    }
}

/// What the columns of a table may be called; the first name is the one to use.
const COLUMNS: [(&str, &[&str]); 7] = [
    ("path", &["path", "image", "file"]),
    ("text", &["text", "text_a", "sentence", "sentence1", "premise"]),
    ("text_pair", &["text_pair", "text2", "text_b", "sentence2", "hypothesis"]),
    ("label", &["label", "label_id"]),
    ("mask", &["mask"]),
    ("mask_value", &["mask_value"]),
    ("rationale", &["rationale"]),
];

fn table(path: &Path, labelled: bool) -> Result<Data> {
    let at = |e: csv::Error| Error::Usage(format!("--data {}: {e}", path.display()));
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(at)?;
    let headers = reader.headers().map_err(at)?.clone();
    let is = |header: &str, names: &[&str]| {
        names.iter().any(|n| header.trim_start_matches('\u{feff}').eq_ignore_ascii_case(n))
    };
    let column = |wanted: &str| {
        let (_, names) = COLUMNS.iter().find(|(name, _)| *name == wanted)?;
        headers.iter().position(|h| is(h, names))
    };
    let (picture, text) = (column("path"), column("text"));
    let (label, Some(content)) = (column("label"), picture.or(text).filter(|_| !labelled || column("label").is_some()))
    else {
        return Err(Error::Usage(format!(
            "--data {}: expected the columns path,label[,mask[,mask_value]] or text,label[,text_pair][,rationale]; it has {}",
            path.display(),
            headers.iter().collect::<Vec<_>>().join(",")
        )));
    };
    // Of pictures and of texts, the columns that say something.
    let (pair, rationale) = if picture.is_some() { (None, None) } else { (column("text_pair"), column("rationale")) };
    let (mask, value) = if picture.is_some() { (column("mask"), column("mask_value")) } else { (None, None) };
    let used = [label, Some(content), pair, rationale, mask, value.filter(|_| mask.is_some())];
    let ignored: Vec<&str> =
        headers.iter().enumerate().filter(|(i, _)| !used.contains(&Some(*i))).map(|(_, h)| h).collect();
    let left_out = match &ignored[..] {
        [] => Vec::new(),
        [one] => vec![format!("the column {one}")],
        many => vec![format!("the columns {}", many.join(", "))],
    };
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut samples = Vec::new();
    for (line, record) in reader.records().enumerate() {
        let record = record.map_err(at)?;
        let field = |i: usize| record.get(i).unwrap_or_default().to_string();
        let filled = |i: Option<usize>| i.map(field).filter(|f| !f.is_empty());
        let (name, content) = if picture.is_some() {
            let file = folder.join(field(content));
            (field(content), Input::of_file(&file).unwrap_or(Input::Picture(file)))
        } else {
            (format!("line {}", line + 2), Input::Text(Text { first: field(content), second: filled(pair) }))
        };
        let mask = filled(mask).map(|m| MaskFile { path: folder.join(m), object: filled(value) });
        samples.push(Sample { name, content, label: label.map(field), mask, rationale: filled(rationale) });
    }
    Ok(Data { samples, left_out, failures: Vec::new() })
}

/// The tokens of a rationale, `[T]`.
///
/// # Errors
/// [`Error::Input`] for a passage that the text does not hold.
pub fn rationale_tokens(rationale: &str, layout: &TextLayout) -> Result<Vec<bool>> {
    let text: Vec<char> = layout.texts.first().map(|t| t.chars().collect()).unwrap_or_default();
    let mut ranges = Vec::new();
    for part in rationale.split(';').map(str::trim).filter(|p| !p.is_empty()) {
        let numbers = part.split_once('-').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let range = numbers.or_else(|| {
            let passage: Vec<char> = part.chars().collect();
            let found = text.windows(passage.len()).position(|w| w == passage)?;
            Some((found, found + passage.len()))
        });
        ranges.push(range.ok_or_else(|| Error::Input(format!("its text does not hold the rationale `{part}`")))?);
    }
    let marked = |start: usize, end: usize| ranges.iter().any(|(from, to)| start < *to && end > *from);
    Ok(layout.tokens.iter().map(|t| !t.special && t.text == 0 && marked(t.start, t.end)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explanation::TextToken;

    #[test]
    fn csvs_are_read_and_other_columns_named() {
        let dir = tempfile::tempdir().unwrap();
        let csv = dir.path().join("d.csv");
        let read = |text: &str| {
            std::fs::write(&csv, text).unwrap();
            read(&csv)
        };
        let data = read("image,label,mask,mask_value,split\na.jpg,cat,m.png,15,test\nb.npy,3,,,test\n").unwrap();
        let mask = MaskFile { path: dir.path().join("m.png"), object: Some("15".into()) };
        assert_eq!((data.samples.len(), &data.samples[0].mask), (2, &Some(mask)));
        assert_eq!(data.samples[1].content, Input::Array(dir.path().join("b.npy"), None));
        assert_eq!((data.samples[1].label.as_deref(), &data.samples[1].mask), (Some("3"), &None));
        assert_eq!(data.left_out, ["the column split"]);
        let data = read("\u{feff}text,text_pair,label,mask,id\n\"good, really\",bad,positive,m.png,7\n").unwrap();
        let pair = Text { first: "good, really".into(), second: Some("bad".into()) };
        assert_eq!(data.samples[0].content, Input::Text(pair));
        assert_eq!(data.left_out, ["the columns mask, id"]);
        let data = read("text,label,rationale\nfine,positive,fine\n").unwrap();
        assert_eq!((data.samples[0].rationale.as_deref(), data.left_out.len()), (Some("fine"), 0));
        assert!(read("a,b\n1,2\n").unwrap_err().to_string().contains("path,label"));
        let mask = MaskFile { path: "m.png".into(), object: Some("cat".into()) };
        assert!(mask.read().unwrap_err().to_string().contains("no whole number"));
    }

    #[test]
    fn class_folders_are_read_with_what_lies_in_them() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        std::fs::create_dir_all(root.join("cat/tabby/more")).unwrap();
        assert!(read(&root).unwrap_err().to_string().contains("no labelled input"));
        for file in
            ["cat/1.PNG", "cat/2.jfif", "cat/tabby/3.npy", "cat/tabby/more/4.webp", "cat/5.heic", "cat/README", "6.jpg"]
        {
            std::fs::write(root.join(file), b"").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(&root, root.join("cat/tabby/loop")).unwrap();
        let data = read(&root).unwrap();
        let names: Vec<_> = data.samples.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["cat/1.PNG", "cat/2.jfif", "cat/tabby/3.npy", "cat/tabby/more/4.webp"]);
        assert!(data.samples.iter().all(|s| s.label.as_deref() == Some("cat")));
        let told = data.left_out.join("; ");
        for part in [".heic", "no ending", "1 file beside the class folders"] {
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn data_without_labels_are_read_where_none_are_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("plain")).unwrap();
        for name in ["plain/b.png", "plain/a.jpg", "plain/README"] {
            std::fs::write(at(name), b"").unwrap();
        }
        let names = |data: &Data| data.samples.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
        let data = read_any(&at("plain")).unwrap();
        assert_eq!(names(&data), ["a.jpg", "b.png"]);
        assert!(data.samples.iter().all(|s| s.label.is_none()) && data.left_out.join("").contains("no ending"));
        assert!(read(&at("plain")).unwrap_err().to_string().contains("no labelled input"));
        // A class folder is one.
        std::fs::create_dir(at("plain/cat")).unwrap();
        std::fs::write(at("plain/cat/c.png"), b"").unwrap();
        assert_eq!(names(&read_any(&at("plain")).unwrap()), ["cat/c.png"]);
        std::fs::write(at("t.txt"), b"good, and so on\r\n\n \n\xff\nbad").unwrap();
        let data = read_any(&at("t.txt")).unwrap();
        assert_eq!(names(&data), ["line 1", "line 5"]);
        assert_eq!(data.samples[0].content, Input::Text(Text { first: "good, and so on".into(), second: None }));
        assert_eq!(data.failures, [("line 4".to_string(), "is not UTF-8 text".to_string())]);
        std::fs::write(at("t.csv"), "id,text\n1,good\n").unwrap();
        assert_eq!(read_any(&at("t.csv")).unwrap().samples[0].label, None);
        assert!(read(&at("t.csv")).unwrap_err().to_string().contains("expected the columns"));
    }

    #[test]
    fn rationales_mark_tokens() {
        let token = |start, end, special| TextToken { piece: String::new(), start, end, text: 0, word: None, special };
        let tokens = vec![token(0, 0, true), token(0, 1, false), token(2, 6, false), token(6, 8, false)];
        let layout = TextLayout { tokens, texts: vec!["a goodly".into()], ..Default::default() };
        assert_eq!(rationale_tokens("good", &layout).unwrap(), [false, false, true, false]);
        assert_eq!(rationale_tokens("0-1; goodly", &layout).unwrap(), [false, true, true, true]);
        assert!(rationale_tokens("bad", &layout).is_err());
    }
}
