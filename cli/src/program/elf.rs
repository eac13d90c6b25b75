//! An ELF file's own word on who loads it and who makes its system calls.

use super::Unreachable;
use std::fs::File;
use std::os::unix::fs::FileExt;

#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;
#[cfg(not(target_arch = "aarch64"))]
const MACHINE: u16 = 62;

/// The dynamic loader that every glibc program names, in whatever directory.
#[cfg(target_arch = "aarch64")]
pub(super) const GLIBC_LOADER: &str = "/lib/ld-linux-aarch64.so.1";
#[cfg(not(target_arch = "aarch64"))]
pub(super) const GLIBC_LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
const DT_NEEDED: u64 = 1;
/// What Go's linker leaves in each program, also stripped.
const GO_SECTIONS: [&[u8]; 3] = [b".gopclntab", b".note.go.buildid", b".go.buildinfo"];
/// No table or string that is looked at is longer.
const TABLE_MAX: usize = 1 << 20;

/// At most `len` bytes from an offset on.
pub(super) fn read(file: &File, at: u64, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len.min(TABLE_MAX)];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at.checked_add(filled as u64)?).ok()? {
            0 => break,
            n => filled += n,
        }
    }
    bytes.truncate(filled);
    Some(bytes)
}

/// `None`: reachable, no ELF file, or one that contradicts itself: exec will tell.
pub(super) fn check(file: &File) -> Option<Unreachable> {
    let head = read(file, 0, 64)?;
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    let is_64_bit_little_endian = head.get(4..6) == Some(&[2, 1]);
    if !is_64_bit_little_endian || half(&head, 18)? != MACHINE {
        return Some(Unreachable::Foreign);
    }
    let segments = Segments::of(file, &head)?;
    if segments.has_go_note() || has_go_section(file, &head).unwrap_or(false) {
        return Some(Unreachable::Go);
    }
    let Some(interpreter) = segments.bytes(PT_INTERP) else { return Some(Unreachable::Static) };
    let name = |path: &[u8]| path.rsplit(|b| *b == b'/').next().unwrap_or_default().to_owned();
    if name(interpreter.split(|b| *b == 0).next()?) != name(GLIBC_LOADER.as_bytes()) {
        return Some(Unreachable::OtherLibc);
    }
    let dynamic = segments.bytes(PT_DYNAMIC)?;
    let needs = dynamic.chunks_exact(16).any(|entry| word(entry, 0) == Some(DT_NEEDED));
    (!needs).then_some(Unreachable::Static)
}

/// The program headers.
struct Segments<'a> {
    file: &'a File,
    table: Vec<u8>,
    size: usize,
}

impl<'a> Segments<'a> {
    fn of(file: &'a File, head: &[u8]) -> Option<Segments<'a>> {
        let (size, count) = (usize::from(half(head, 54)?), usize::from(half(head, 56)?));
        let table = read(file, word(head, 32)?, size * count)?;
        (size >= 56 && table.len() == size * count).then_some(Segments { file, table, size })
    }

    /// What the file holds for each segment of a kind.
    fn all(&self, kind: u32) -> impl Iterator<Item = Vec<u8>> + '_ {
        let headers = self.table.chunks_exact(self.size).filter(move |header| int(header, 0) == Some(kind));
        headers.filter_map(|header| read(self.file, word(header, 8)?, usize::try_from(word(header, 32)?).ok()?))
    }

    fn bytes(&self, kind: u32) -> Option<Vec<u8>> {
        self.all(kind).next()
    }

    /// A note of the name "Go" is the build id of Go's linker.
    fn has_go_note(&self) -> bool {
        self.all(PT_NOTE).any(|notes| is_go_among(&notes))
    }
}

fn is_go_among(mut notes: &[u8]) -> bool {
    loop {
        let (Some(name_len), Some(content_len)) = (int(notes, 0), int(notes, 4)) else { return false };
        let (name_len, content_len) = (name_len as usize, content_len as usize);
        let Some(name) = notes.get(12..).and_then(|rest| rest.get(..name_len)) else { return false };
        if name == b"Go\0\0" || name == b"Go\0" {
            return true;
        }
        let next = 12 + name_len.next_multiple_of(4) + content_len.next_multiple_of(4);
        let Some(rest) = notes.get(next..) else { return false };
        notes = rest;
    }
}

fn has_go_section(file: &File, head: &[u8]) -> Option<bool> {
    let (size, count) = (usize::from(half(head, 58)?), usize::from(half(head, 60)?));
    let table = read(file, word(head, 40)?, size * count).filter(|_| size >= 64)?;
    let sections: Vec<&[u8]> = table.chunks_exact(size).collect();
    let names = sections.get(usize::from(half(head, 62)?))?;
    let names = read(file, word(names, 24)?, usize::try_from(word(names, 32)?).ok()?)?;
    let name_of = |section: &&[u8]| {
        let rest = names.get(int(section, 0)? as usize..)?;
        rest.split(|b| *b == 0).next()
    };
    Some(sections.iter().filter_map(name_of).any(|name| GO_SECTIONS.contains(&name)))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn int(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;

    /// A small ELF file: a header, program headers, what they name, section headers.
    #[derive(Default)]
    pub(crate) struct Sample<'a> {
        pub(crate) interpreter: Option<&'a str>,
        /// The dynamic section names a library.
        pub(crate) needs: bool,
        pub(crate) note: Option<&'a [u8]>,
        pub(crate) section: Option<&'a str>,
    }

    const HEADERS: usize = 64;
    const BODY: usize = HEADERS + 3 * 56;

    impl Sample<'_> {
        pub(crate) fn build(&self) -> Vec<u8> {
            let mut body = Vec::new();
            let mut headers = Vec::new();
            let mut segment = |kind: u32, bytes: &[u8]| {
                let mut header = [0u8; 56];
                header[..4].copy_from_slice(&kind.to_le_bytes());
                header[8..16].copy_from_slice(&((BODY + body.len()) as u64).to_le_bytes());
                header[32..40].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
                headers.extend_from_slice(&header);
                body.extend_from_slice(bytes);
            };
            if let Some(path) = self.interpreter {
                segment(PT_INTERP, format!("{path}\0").as_bytes());
            }
            let mut dynamic = [0u8; 32];
            dynamic[0] = u8::from(self.needs);
            segment(PT_DYNAMIC, &dynamic);
            if let Some(name) = self.note {
                segment(PT_NOTE, &note(b"GNU\0", 20));
                let last = headers.len() - 56;
                let both = [note(b"GNU\0", 20), note(name, 83)].concat();
                headers[last + 32..last + 40].copy_from_slice(&(both.len() as u64).to_le_bytes());
                body.extend_from_slice(&note(name, 83));
            }
            let count = headers.len() / 56;
            headers.resize(3 * 56, 0);
            let mut file = [header(count).as_slice(), &headers, &body].concat();
            if let Some(name) = self.section {
                append_section(&mut file, name);
            }
            file
        }

        fn verdict(&self) -> Option<Unreachable> {
            verdict(&self.build())
        }
    }

    fn header(segments: usize) -> [u8; HEADERS] {
        let mut head = [0u8; HEADERS];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[18..20].copy_from_slice(&MACHINE.to_le_bytes());
        head[32] = HEADERS as u8;
        (head[54], head[56]) = (56, segments as u8);
        head
    }

    fn note(name: &[u8], content_len: usize) -> Vec<u8> {
        let mut bytes = [name.len() as u32, content_len as u32, 4].map(u32::to_le_bytes).concat();
        bytes.extend_from_slice(name);
        bytes.resize(bytes.len().next_multiple_of(4) + content_len.next_multiple_of(4), b'x');
        bytes
    }

    /// Two sections: the names, and one that bears `name`.
    fn append_section(file: &mut Vec<u8>, name: &str) {
        let names_at = file.len() as u64;
        let names = format!("\0{name}\0");
        file.extend_from_slice(names.as_bytes());
        let table_at = file.len() as u64;
        for name_at in [0u8, 1] {
            let mut section = [0u8; 64];
            section[0] = name_at;
            section[24..32].copy_from_slice(&names_at.to_le_bytes());
            section[32..40].copy_from_slice(&(names.len() as u64).to_le_bytes());
            file.extend_from_slice(&section);
        }
        file[40..48].copy_from_slice(&table_at.to_le_bytes());
        (file[58], file[60], file[62]) = (64, 2, 0);
    }

    fn verdict(bytes: &[u8]) -> Option<Unreachable> {
        let name = format!("sidestep-elf-{}-{:?}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(name);
        File::create(&path).and_then(|mut file| file.write_all(bytes)).expect("a file");
        let verdict = check(&File::open(&path).expect("the file"));
        let _ = std::fs::remove_file(&path);
        verdict
    }

    #[test]
    fn who_loads_it() {
        let glibc = Some(GLIBC_LOADER);
        assert_eq!(Sample { interpreter: glibc, needs: true, ..Default::default() }.verdict(), None);
        let elsewhere = format!("/nix/store/x-glibc{GLIBC_LOADER}");
        assert_eq!(Sample { interpreter: Some(&elsewhere), needs: true, ..Default::default() }.verdict(), None);
        assert_eq!(Sample { interpreter: glibc, ..Default::default() }.verdict(), Some(Unreachable::Static));
        assert_eq!(Sample::default().verdict(), Some(Unreachable::Static));
        let musl = Some("/lib/ld-musl-x86_64.so.1");
        assert_eq!(
            Sample { interpreter: musl, needs: true, ..Default::default() }.verdict(),
            Some(Unreachable::OtherLibc)
        );
    }

    #[test]
    fn go_is_known_by_its_note_and_by_its_sections() {
        let linked = || Sample { interpreter: Some(GLIBC_LOADER), needs: true, ..Default::default() };
        assert_eq!(Sample { note: Some(b"Go\0\0"), ..linked() }.verdict(), Some(Unreachable::Go));
        assert_eq!(Sample { note: Some(b"GNU\0"), ..linked() }.verdict(), None);
        for (name, verdict) in
            [(".gopclntab", Some(Unreachable::Go)), (".note.go.buildid", Some(Unreachable::Go)), (".text", None)]
        {
            assert_eq!(Sample { section: Some(name), ..linked() }.verdict(), verdict, "{name}");
        }
        assert_eq!(Sample { section: Some(".gopclntab"), ..Default::default() }.verdict(), Some(Unreachable::Go));
    }

    #[test]
    fn foreign_cut_and_contradictory_files() {
        let mut file =
            Sample { interpreter: Some(GLIBC_LOADER), needs: true, section: Some(".text"), ..Default::default() }
                .build();
        for cut in 0..file.len() {
            // No panic; what is left decides.
            let _ = verdict(&file[..cut]);
        }
        assert_eq!(verdict(&file[..40]), None);
        let with = |at: usize, value: u8| {
            let mut changed = file.clone();
            changed[at] = value;
            verdict(&changed)
        };
        assert_eq!(with(4, 1), Some(Unreachable::Foreign));
        assert_eq!(with(5, 2), Some(Unreachable::Foreign));
        assert_eq!(with(18, 3), Some(Unreachable::Foreign));
        assert_eq!(with(54, 1), None);
        assert_eq!(with(62, 200), None);
        file[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(verdict(&file), None);
    }
}
