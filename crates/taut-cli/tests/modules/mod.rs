//! The modules of a crate, and which of them imports which, found out from the sources alone.
//!
//! A module and the modules inside of it are one room: a child may use what its parent defines, and the parent uses its
//! children. Between the children of one parent, arrows go one way: an arrow leads from one child to another where anything
//! in the first, at any depth, names anything in the second. The modules at the top of a crate are children of its root.
//!
//! A name that a module only passes on (`use`, public or not) leads to where it comes from, so a parent's imports hide no
//! arrow between its children.

#![allow(unreachable_pub, reason = "a module of a test")]

pub mod names;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

use names::{Name, Source};

/// A module's path from the root of its crate, which is empty.
pub type ModulePath = Vec<String>;

#[derive(Debug)]
pub struct Crate {
    modules: BTreeMap<ModulePath, Module>,
}

#[derive(Debug, Default)]
struct Module {
    file: PathBuf,
    /// Paths in the code, but for single words: where such a word stands for something of another module, an import says so.
    paths: Vec<Name>,
    imports: Vec<Name>,
    items: BTreeSet<String>,
}

/// One child of a module imports another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrow {
    pub from: ModulePath,
    pub to: ModulePath,
    pub file: PathBuf,
    pub line: usize,
    /// The path as the code has it.
    pub name: String,
}

/// Arrows that lead back to where they begin.
#[derive(Debug)]
pub struct Circle(pub Vec<Arrow>);

impl Crate {
    /// Reads a crate from its files, whose paths are relative to `folder`.
    ///
    /// # Panics
    /// When a file is not Rust.
    pub fn read<'a>(folder: &Path, files: impl IntoIterator<Item = (PathBuf, &'a str)>) -> Self {
        let mut modules: BTreeMap<ModulePath, Module> = BTreeMap::new();
        let mut for_tests = Vec::new();
        for (file, text) in files {
            let path = module_path(&file);
            let source = Source::read(text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let within = |module: &[String]| [&path[..], module].concat();
            for module in source.inline_modules.iter().chain([&Vec::new()]) {
                modules.entry(within(module)).or_default().file = folder.join(&file);
            }
            for name in source.names {
                let module = modules.entry(within(&name.module)).or_default();
                match name.binding {
                    Some(_) => module.imports.push(name),
                    None if name.path.len() > 1 => module.paths.push(name),
                    None => {}
                }
            }
            for (module, item) in source.items {
                modules.entry(within(&module)).or_default().items.insert(item);
            }
            for_tests.extend(source.test_modules.iter().map(|module| within(module)));
        }
        modules.retain(|path, _| !for_tests.iter().any(|tests| path.starts_with(tests)));
        Self { modules }
    }

    /// The modules at the top of the crate.
    pub fn top(&self) -> BTreeSet<&str> {
        self.modules.keys().filter(|path| path.len() == 1).map(|path| path[0].as_str()).collect()
    }

    /// Every arrow between two children of one parent, once.
    pub fn arrows(&self) -> Vec<Arrow> {
        let mut arrows = BTreeMap::new();
        for (from, module) in &self.modules {
            for name in module.imports.iter().chain(&module.paths) {
                for to in self.modules_named(from, name) {
                    let shared = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
                    if shared == from.len() || shared == to.len() {
                        continue;
                    }
                    let (from, to) = (from[..=shared].to_vec(), to[..=shared].to_vec());
                    arrows.entry((from.clone(), to.clone())).or_insert_with(|| Arrow {
                        from,
                        to,
                        file: module.file.clone(),
                        line: name.line,
                        name: name.path.join("::"),
                    });
                }
            }
        }
        arrows.into_values().collect()
    }

    /// Circles among the children of any one parent, the shortest first: together they hold every arrow that has to be broken.
    pub fn circles(&self) -> Vec<Circle> {
        let mut arrows = self.arrows();
        let mut circles = Vec::new();
        while let Some(circle) = shortest_circle(&arrows) {
            arrows.retain(|arrow| !circle.0.contains(arrow));
            circles.push(circle);
        }
        circles
    }

    /// The modules that a name passes through, and the one it ends in.
    fn modules_named(&self, from: &ModulePath, name: &Name) -> BTreeSet<ModulePath> {
        let mut found = BTreeSet::new();
        if !name.is_absolute {
            self.follow(from, &name.path, &mut found, DETOURS);
        }
        found
    }

    fn follow(&self, from: &ModulePath, path: &[String], found: &mut BTreeSet<ModulePath>, detours: usize) {
        let mut at = from.clone();
        for (index, segment) in path.iter().enumerate() {
            let child = [&at[..], std::slice::from_ref(segment)].concat();
            match segment.as_str() {
                "crate" => at.clear(),
                "self" => {}
                "super" => drop(at.pop()),
                _ if self.modules.contains_key(&child) => at = child,
                _ => {
                    self.follow_imports(&at, &path[index..], found, detours);
                    break;
                }
            }
        }
        found.insert(at);
    }

    /// Follows a path that begins with what a module has imported.
    fn follow_imports(&self, at: &ModulePath, path: &[String], found: &mut BTreeSet<ModulePath>, detours: usize) {
        let Some(detours) = detours.checked_sub(1) else { return };
        let imports = self.modules.get(at).into_iter().flat_map(|module| &module.imports);
        for import in imports.filter(|name| !name.is_absolute) {
            match import.binding.as_deref() {
                Some("*") => {
                    let mut globbed = BTreeSet::new();
                    self.follow(at, &import.path, &mut globbed, detours);
                    for module in globbed.iter().filter(|&module| module != at && self.has(module, &path[0])) {
                        self.follow(module, path, found, detours);
                    }
                }
                Some(binding) if binding == path[0] => {
                    self.follow(at, &[&import.path[..], &path[1..]].concat(), found, detours);
                }
                _ => {}
            }
        }
    }

    fn has(&self, module: &ModulePath, name: &String) -> bool {
        let Some(contents) = self.modules.get(module) else { return false };
        contents.items.contains(name)
            || contents.imports.iter().any(|import| import.binding.as_ref() == Some(name))
            || self.modules.contains_key(&[&module[..], std::slice::from_ref(name)].concat())
    }
}

/// How many imports of imports are followed.
const DETOURS: usize = 8;

fn module_path(file: &Path) -> ModulePath {
    let path = file.with_extension("");
    let mut segments: ModulePath = path.iter().map(|segment| segment.to_string_lossy().into_owned()).collect();
    if segments.last().is_some_and(|last| last == "mod")
        || matches!(&segments[..], [root] if root == "lib" || root == "main")
    {
        segments.pop();
    }
    segments
}

fn shortest_circle(arrows: &[Arrow]) -> Option<Circle> {
    let circles = arrows.iter().filter_map(|first| {
        let rest = way(arrows, &first.to, &first.from)?;
        Some([vec![first], rest].concat())
    });
    circles.min_by_key(Vec::len).map(|circle| Circle(circle.into_iter().cloned().collect()))
}

/// The shortest way along the arrows from one module to another.
fn way<'a>(arrows: &'a [Arrow], from: &'a ModulePath, to: &ModulePath) -> Option<Vec<&'a Arrow>> {
    let mut ways = VecDeque::from([(from, Vec::new())]);
    let mut seen = BTreeSet::from([from]);
    while let Some((at, way)) = ways.pop_front() {
        if at == to {
            return Some(way);
        }
        for arrow in arrows.iter().filter(|arrow| arrow.from == *at) {
            if seen.insert(&arrow.to) {
                ways.push_back((&arrow.to, [&way[..], &[arrow]].concat()));
            }
        }
    }
    None
}

impl Display for Arrow {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { from, to, file, line, name } = self;
        write!(formatter, "{} names {} (`{name}` at {}:{line})", from.join("::"), to.join("::"), file.display())
    }
}

impl Display for Circle {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let arrows: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        formatter.write_str(&arrows.join(", "))
    }
}

/// Circles put in by hand, in texts: each form in which code can name a module.
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let files = files.iter().map(|&(file, text)| (PathBuf::from(file), text));
        Crate::read(Path::new("src"), files).circles().iter().map(ToString::to_string).collect()
    }

    /// Whether `a` and `b` are in a circle when `b` imports `a`, and `a` says this.
    fn is_circle(a: &str) -> bool {
        let root = "pub use b::Bee;\nmod a;\nmod b;\nmod c;";
        let b = "use crate::a::Ay;\nfn f() {}\npub struct Bee;\npub enum Kind { One }\npub mod deep {}";
        match &circles(&[("lib.rs", root), ("a.rs", a), ("a/child.rs", ""), ("b.rs", b), ("c.rs", "")])[..] {
            [] => false,
            [circle] => {
                assert!(circle.contains("a names b") && circle.contains("b names a"), "{circle}");
                true
            }
            several => panic!("one circle at most: {several:?}"),
        }
    }

    #[test]
    fn a_circle_is_found_however_an_import_is_written() {
        for import in [
            "use crate::b::Bee;",
            "use crate::b;",
            "use crate::{b::{deep, Bee}, c};",
            "use crate::{c, b::{self}};",
            "use super::b::Bee as Other;",
            "use crate::b::*;",
            "pub(crate) use crate::b::Bee;",
            "pub(in crate::a) use crate::b::Bee;",
            "#[cfg(feature = \"f\")]\nuse crate::b::Bee;",
            "#[cfg(not(test))]\nuse crate::b::Bee;",
            "#[cfg(any(test, feature = \"testing\"))]\nuse crate::b::Bee;",
            // The root of the crate passes it on.
            "use crate::Bee;",
            "use super::Bee;",
        ] {
            assert!(is_circle(import), "{import}");
        }
    }

    #[test]
    fn a_circle_is_found_wherever_a_path_stands() {
        for code in [
            "fn f() { crate::b::f() }",
            "fn f() { use crate::b::Bee; }",
            "fn f(bee: &crate::b::Bee) {}",
            "fn f() -> Vec<super::b::Bee> { Vec::new() }",
            "struct S<'a> { bee: &'a crate::b::Bee }",
            "impl crate::b::Trait for S {}",
            "fn f() { let text = format!(\"{}\", crate::b::f()); }",
            "macro_rules! m { () => { $crate::b::f() } }",
            "fn f(kind: Kind) { match kind { crate::b::Kind::One => {} } }",
            "mod inline { fn f() { super::super::b::f() } }",
            "mod inline { mod inner { use super::super::super::b::Bee; } }",
            "use crate::c;\nuse super::{b as other};",
            "#[derive(crate::b::Derive)]\nstruct S;",
            // What a line says before and behind a string, a comment or a lifetime counts.
            "fn f<'a>() { g(\"// \", crate::b::f()) /* why */ }",
            "const C: char = '\"'; fn f() { crate::b::f() }",
            "#[cfg(test)]\nmod tests {}\nuse crate::b::Bee;",
            "#[cfg(test)]\nuse crate::{c, a::child};\nuse crate::b::Bee;",
            "struct S { #[cfg(test)] count: u8, bee: crate::b::Bee }",
        ] {
            assert!(is_circle(code), "{code}");
        }
    }

    #[test]
    fn comments_strings_and_tests_make_no_circle() {
        for code in [
            "//! [`Bee`](crate::b::Bee)",
            "/// [`Bee`](crate::b::Bee)\nfn f() {}",
            "// use crate::b::Bee;",
            "/* use crate::b::Bee; /* crate::b */ crate::b::f() */",
            "const S: &str = \"crate::b::f()\";",
            "const S: &str = r#\"\"crate::b::f()\"#;",
            "#[cfg(test)]\nmod tests { use crate::b::Bee; }",
            "#[cfg(all(test, feature = \"f\"))]\nmod tests { use crate::b::Bee; }",
            "#[cfg(test)]\n#[allow(unused)]\nuse crate::{c, b::Bee};",
            "#[cfg(test)]\nfn f() -> crate::b::Bee { crate::b::f() }",
            "#[cfg(test)]\nimpl S { fn f<A, B>() { crate::b::f() } }",
            "struct S { #[cfg(test)] bee: crate::b::Bee, count: u8 }",
            "#![cfg(test)]\nuse crate::b::Bee;",
            // Another crate, an item of its own, a module of its own.
            "use ::b::Bee;",
            "use b::Bee;",
            "mod b { pub fn f() {} }\nfn f() { b::f(); self::b::f() }",
            "use crate::c;\nuse child::Thing;",
        ] {
            assert!(!is_circle(code), "{code}");
        }
    }

    #[test]
    fn a_file_of_tests_makes_no_circle() {
        let a = "#[cfg(test)]\nmod child;";
        let files = [("a.rs", a), ("a/child.rs", "use crate::b::Bee;"), ("b.rs", "use crate::a::Ay;")];
        assert!(circles(&files).is_empty());
    }

    #[test]
    fn a_parent_and_its_children_are_one_room() {
        let files = [
            ("lib.rs", "mod a;\npub struct Root;\nfn f() { a::f() }"),
            ("a.rs", "mod child;\nuse child::Thing;\npub struct Ay;"),
            ("a/child.rs", "use super::Ay;\nuse crate::Root;\nuse crate::a::f;"),
        ];
        assert!(circles(&files).is_empty());
    }

    #[test]
    fn children_of_one_parent_do_not_import_each_other_in_a_circle_however_deep_they_are() {
        let one = ("a/one/inner.rs", "use super::super::two::Two;");
        let files = [("a.rs", ""), ("a/one.rs", ""), one, ("a/two/mod.rs", "fn f() { crate::a::one::f() }")];
        assert_eq!(
            circles(&files),
            ["a::one names a::two (`super::super::two::Two` at src/a/one/inner.rs:1), \
              a::two names a::one (`crate::a::one::f` at src/a/two/mod.rs:1)"]
        );
    }

    #[test]
    fn what_a_parent_imports_hides_no_circle_between_its_children() {
        for parent in [
            "use two::Two;",
            "pub(crate) use two::{Two};",
            "pub use self::two::*;",
            "use two::Two as Other;\nuse Other as Two;",
        ] {
            let two = ("a/two.rs", "use super::one::One;\npub struct Two;");
            let files = [("a.rs", parent), ("a/one.rs", "use super::Two;"), two];
            assert_eq!(circles(&files).len(), 1, "{parent}");
        }
    }

    #[test]
    fn a_long_circle_is_named_with_each_of_its_arrows() {
        let files = [
            ("a.rs", "use crate::{\n    b::{\n        Bee,\n    },\n};"),
            ("b.rs", "use crate::c::Sea;"),
            ("c.rs", "\nfn f() { crate::a::f() }"),
            ("d.rs", "use crate::a::Ay;"),
        ];
        assert_eq!(
            circles(&files),
            ["a names b (`crate::b::Bee` at src/a.rs:3), b names c (`crate::c::Sea` at src/b.rs:1), \
              c names a (`crate::a::f` at src/c.rs:2)"]
        );
    }

    #[test]
    fn two_circles_are_both_named() {
        let files = [("a.rs", "use crate::b;"), ("b.rs", "use crate::{a, c};"), ("c.rs", "use crate::b;")];
        assert_eq!(circles(&files).len(), 2);
    }
}
