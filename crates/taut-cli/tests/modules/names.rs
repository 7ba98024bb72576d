//! Reads which paths the code of a source file names: in imports, however they are nested, in expressions, in types, and in
//! what is passed to macros. Comments, strings and code that is compiled for tests alone do not count.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, Group, LexError, Spacing, TokenStream, TokenTree};

/// A source file, as far as names go. Each module is given by its path from the file's own module, which is empty.
#[derive(Debug, Default)]
pub struct Source {
    pub names: Vec<Name>,
    /// The modules that are written out in the file.
    pub inline_modules: BTreeSet<Vec<String>>,
    /// The modules, in this file or another, that are compiled for tests alone.
    pub test_modules: BTreeSet<Vec<String>>,
    /// Each item, with the module it is defined in.
    pub items: BTreeSet<(Vec<String>, String)>,
}

/// A path in the code of a file.
#[derive(Debug)]
pub struct Name {
    /// The inline module that it is written in.
    pub module: Vec<String>,
    /// The line of its last segment.
    pub line: usize,
    /// At least one segment: `crate`, `self` and `super` are segments, too.
    pub path: Vec<String>,
    /// It begins with `::`: the name of another crate.
    pub is_absolute: bool,
    /// What an import binds it to: `*` for a glob, `None` outside of imports.
    pub binding: Option<String>,
}

impl Source {
    pub fn read(text: &str) -> Result<Self, LexError> {
        let mut reader = Reader::default();
        reader.read(text.parse()?, true);
        Ok(reader.source)
    }
}

#[derive(Default)]
struct Reader {
    source: Source,
    module: Vec<String>,
}

impl Reader {
    fn read(&mut self, tokens: TokenStream, is_module: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut index = 0;
        while index < tokens.len() {
            index = self.step(&tokens, index, is_module);
        }
    }

    /// Reads what begins at `index` and returns where the next thing begins.
    fn step(&mut self, tokens: &[TokenTree], index: usize, is_module: bool) -> usize {
        let next = tokens.get(index + 1);
        match &tokens[index] {
            TokenTree::Punct(punct) if punct.as_char() == '#' => match next {
                Some(TokenTree::Group(attribute)) if is_for_tests(attribute) => self.skip_item(tokens, index + 2),
                Some(TokenTree::Punct(_)) if group(tokens, index + 2).is_some_and(is_for_tests) => tokens.len(),
                _ => index + 1,
            },
            // A lifetime.
            TokenTree::Punct(punct) if punct.as_char() == '\'' => index + 2,
            TokenTree::Punct(_) if is_separator(tokens, index) => self.read_path(tokens, index + 2, true),
            TokenTree::Group(group) => {
                self.read(group.stream(), false);
                index + 1
            }
            TokenTree::Ident(word) if word == "use" && !is_punct(next, '<') => self.read_import(tokens, index + 1),
            TokenTree::Ident(word) if word == "pub" && group(tokens, index + 1).is_some_and(is_in_parentheses) => {
                index + 2
            }
            TokenTree::Ident(word) if word == "mod" => match (next, group(tokens, index + 2)) {
                (Some(TokenTree::Ident(name)), Some(body)) => {
                    self.module.push(name.to_string());
                    self.source.inline_modules.insert(self.module.clone());
                    self.read(body.stream(), true);
                    self.module.pop();
                    index + 3
                }
                _ => index + 2,
            },
            TokenTree::Ident(word) => {
                if let (true, Some(TokenTree::Ident(name))) = (is_module && ITEMS.iter().any(|item| word == item), next)
                {
                    self.source.items.insert((self.module.clone(), name.to_string()));
                }
                self.read_path(tokens, index, false)
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => index + 1,
        }
    }

    fn read_path(&mut self, tokens: &[TokenTree], mut index: usize, is_absolute: bool) -> usize {
        let mut path = Vec::new();
        let mut line = 0;
        while let Some(TokenTree::Ident(segment)) = tokens.get(index) {
            path.push(segment.to_string());
            line = segment.span().start().line;
            index += 1;
            if !(is_separator(tokens, index) && matches!(tokens.get(index + 2), Some(TokenTree::Ident(_)))) {
                break;
            }
            index += 2;
        }
        if !path.is_empty() {
            self.source.names.push(Name { module: self.module.clone(), line, path, is_absolute, binding: None });
        }
        index
    }

    fn read_import(&mut self, tokens: &[TokenTree], index: usize) -> usize {
        let is_absolute = is_separator(tokens, index);
        self.read_branch(tokens, index, &[], is_absolute)
    }

    /// Reads one branch of an import, as far as the comma or semicolon behind it.
    fn read_branch(&mut self, tokens: &[TokenTree], mut index: usize, trunk: &[String], is_absolute: bool) -> usize {
        let mut path = trunk.to_vec();
        let mut line = 0;
        let mut binding = None;
        while let Some(token) = tokens.get(index) {
            index += 1;
            match token {
                TokenTree::Punct(punct) if matches!(punct.as_char(), ',' | ';') => break,
                TokenTree::Punct(punct) if punct.as_char() == '*' => {
                    line = punct.span().start().line;
                    binding = Some("*".to_owned());
                }
                TokenTree::Ident(word) if word == "as" => {
                    binding = tokens.get(index).map(ToString::to_string);
                    index += 1;
                }
                TokenTree::Ident(word) => {
                    line = word.span().start().line;
                    // In braces, `self` is what stands before them.
                    if word != "self" || path.is_empty() {
                        path.push(word.to_string());
                    }
                }
                TokenTree::Group(branches) => {
                    let branches: Vec<TokenTree> = branches.stream().into_iter().collect();
                    let mut begin = 0;
                    while begin < branches.len() {
                        begin = self.read_branch(&branches, begin, &path, is_absolute);
                    }
                    // The trunk alone is not imported.
                    line = 0;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        if line > 0 {
            let binding = binding.or_else(|| path.last().cloned());
            self.source.names.push(Name { module: self.module.clone(), line, path, is_absolute, binding });
        }
        index
    }

    /// Passes over an item, a field, a statement or an arm that is compiled for tests alone; returns where the next thing begins.
    fn skip_item(&mut self, tokens: &[TokenTree], mut index: usize) -> usize {
        let mut is_item = false;
        let mut is_import = false;
        while let Some(token) = tokens.get(index) {
            index += 1;
            match token {
                TokenTree::Ident(word) if word == "mod" => {
                    if let Some(TokenTree::Ident(name)) = tokens.get(index) {
                        self.source.test_modules.insert([&self.module[..], &[name.to_string()]].concat());
                    }
                }
                TokenTree::Ident(word) if word == "use" => is_import = true,
                TokenTree::Ident(word) if ITEMS.iter().any(|item| word == item) || word == "impl" => is_item = true,
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace && !is_import => break,
                TokenTree::Punct(punct) if punct.as_char() == ';' => break,
                TokenTree::Punct(punct) if punct.as_char() == ',' && !is_item && !is_import => break,
                _ => {}
            }
        }
        index
    }
}

const ITEMS: &[&str] = &["const", "enum", "fn", "static", "struct", "trait", "type", "union"];

/// Whether an attribute, given by its brackets, keeps what follows out of every build but the tests'.
fn is_for_tests(attribute: &Group) -> bool {
    let tokens: Vec<TokenTree> = attribute.stream().into_iter().collect();
    match &tokens[..] {
        [TokenTree::Ident(cfg), TokenTree::Group(condition)] if cfg == "cfg" => needs_tests(condition.stream()),
        _ => false,
    }
}

/// Whether a condition holds in tests alone.
fn needs_tests(condition: TokenStream) -> bool {
    let tokens: Vec<TokenTree> = condition.into_iter().collect();
    let conditions = |group: &Group| {
        let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
        let conditions = tokens.split(|token| is_punct(Some(token), ',')).filter(|condition| !condition.is_empty());
        conditions.map(|condition| needs_tests(condition.iter().cloned().collect())).collect::<Vec<_>>()
    };
    match &tokens[..] {
        [TokenTree::Ident(test)] => test == "test",
        [TokenTree::Ident(all), TokenTree::Group(group)] if all == "all" => conditions(group).contains(&true),
        [TokenTree::Ident(any), TokenTree::Group(group)] if any == "any" => !conditions(group).contains(&false),
        _ => false,
    }
}

fn is_separator(tokens: &[TokenTree], index: usize) -> bool {
    let is_joint = matches!(tokens.get(index), Some(TokenTree::Punct(punct)) if punct.spacing() == Spacing::Joint);
    is_joint && is_punct(tokens.get(index), ':') && is_punct(tokens.get(index + 1), ':')
}

fn is_punct(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

fn is_in_parentheses(group: &Group) -> bool {
    group.delimiter() == Delimiter::Parenthesis
}

fn group(tokens: &[TokenTree], index: usize) -> Option<&Group> {
    match tokens.get(index) {
        Some(TokenTree::Group(group)) => Some(group),
        _ => None,
    }
}
