//! The arrows between the parts of this workspace: which crate may depend on which, which module may import which, and which
//! file may name what.
//!
//! The tables below are the rule, and the manifests and sources are held against them. A change that needs a new arrow writes
//! it here, with the reason in the commit. Circles need no table: [`modules`] finds any, in every crate. This is the place of
//! the test because `taut-cli` sees all other crates.

mod modules;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use modules::Crate;
use modules::names::Source;
use serde_json::Value;

/// One crate and what it may depend on.
struct Room {
    name: &'static str,
    /// Direct dependencies, always there or behind a feature. Build dependencies count as well.
    may: &'static [&'static str],
    /// Direct dependencies that have to be behind a feature, so that nobody pays for them unasked.
    optional: &'static [&'static str],
    /// Crates that must not come in by any way, with the reason. `rand*` also means `rand_core` and `rand-core`.
    never: &'static [(&'static str, &'static str)],
}

const ROOMS: &[Room] = &[
    Room {
        name: "taut-proto",
        may: &["base64", "bytes", "http", "httparse", "memchr", "multiversion", "percent-encoding", "sha1", "simdutf8"],
        optional: &["flate2"],
        never: &[
            ("tokio*", "the core has no runtime"),
            ("mio", "the core has no socket"),
            ("socket2", "the core has no socket"),
            ("futures*", "the core has no task"),
            ("rand*", "randomness is an argument"),
            ("getrandom", "randomness is an argument"),
            ("fastrand", "randomness is an argument"),
            ("time", "time is an argument"),
            ("chrono", "time is an argument"),
            ("web-time", "time is an argument"),
            ("tracing*", "the core says what happened by its return values"),
            ("log", "the core says what happened by its return values"),
            ("parking_lot*", "the core has no lock"),
            ("crossbeam*", "the core has no threads"),
            ("serde*", "the core knows bytes, not documents"),
        ],
    },
    Room {
        name: "taut-shard",
        may: &[
            "arc-swap",
            "crossbeam-queue",
            "getrandom",
            "ipnet",
            "mio",
            "rustix",
            "rustls",
            "rustls-pki-types",
            "slab",
            "socket2",
            "taut-proto",
        ],
        optional: &[],
        never: &[
            ("tokio*", "the loop is synchronous"),
            ("futures*", "the loop is synchronous"),
            ("serde*", "the loop knows nothing of what the messages say"),
            (
                "hyper*",
                "of HTTP it knows the heads that lead to a WebSocket; what else it is asked, its handler answers or takes over",
            ),
            ("parking_lot*", "a connection belongs to one shard; shards talk through mailboxes"),
        ],
    },
    Room {
        name: "taut",
        may: &[
            "base64",
            "getrandom",
            "gloo-timers",
            "httpdate",
            "js-sys",
            "percent-encoding",
            "slab",
            "taut-proto",
            "tokio",
            "wasm-bindgen",
            "web-sys",
        ],
        optional: &[
            "axum",
            "futures-core",
            "futures-sink",
            "h2",
            "h3",
            "http",
            "hyper",
            "hyper-util",
            "quinn",
            "rustls",
            "rustls-native-certs",
            "rustls-pki-types",
            "rustls-webpki",
            "tokio-rustls",
            "tower-layer",
            "tower-service",
            "tracing",
            "webpki-roots",
        ],
        never: &[
            ("serde*", "the library carries messages and does not read them"),
            ("gloo*", "what speaks to a page is for the browser's target alone"),
            ("js-sys", "what speaks to a page is for the browser's target alone"),
            ("wasm-bindgen*", "what speaks to a page is for the browser's target alone"),
            ("web-sys", "what speaks to a page is for the browser's target alone"),
            ("taut-shard", "the library's loop is tokio's"),
        ],
    },
    Room {
        name: "taut-pusher",
        may: &["hmac", "md-5", "memchr", "percent-encoding", "ryu-js", "serde", "serde_json", "sha2", "subtle"],
        optional: &["base64", "crypto_secretbox"],
        never: &[
            ("taut-proto", "a backend that signs needs no WebSocket"),
            ("tokio*", "values have no runtime"),
            ("hyper*", "values have no socket"),
            ("tracing*", "values say what happened by their return values"),
        ],
    },
    Room {
        name: "taut-server",
        may: &[
            "arc-swap",
            "axum",
            "base64",
            "getrandom",
            "h2",
            "hmac",
            "http",
            "http-body-util",
            "httpdate",
            "hyper",
            "hyper-rustls",
            "hyper-util",
            "instant-acme",
            "memchr",
            "percent-encoding",
            "rcgen",
            "redb",
            "redis",
            "ring",
            "rustls",
            "rustls-native-certs",
            "rustls-pki-types",
            "serde",
            "serde_json",
            "sha2",
            "socket2",
            "subtle",
            "taut",
            "taut-proto",
            "taut-pusher",
            "taut-shard",
            "tempfile",
            "tokio",
            "tokio-rustls",
            "toml",
            "tracing",
            "x509-parser",
        ],
        optional: &["opentelemetry", "opentelemetry-http", "sqlx"],
        never: &[
            ("clap*", "terminal code stays away from those who embed the server"),
            ("opentelemetry*", "traces come with the feature otel alone"),
        ],
    },
    Room {
        name: "taut-cli",
        may: &[
            "base64",
            "clap",
            "clap_complete",
            "clap_mangen",
            "getrandom",
            "listenfd",
            "nix",
            "regex",
            "rustix",
            "rustls-native-certs",
            "rustyline",
            "sd-notify",
            "serde_json",
            "signal-hook",
            "taut",
            "taut-proto",
            "taut-pusher",
            "taut-server",
            "taut-shard",
            "terminal_size",
            "tikv-jemallocator",
            "time",
            "tokio",
            "tracing",
            "tracing-subscriber",
            "unicode-width",
            "ureq",
            "x509-parser",
        ],
        optional: &["opentelemetry", "opentelemetry-otlp", "opentelemetry_sdk"],
        never: &[
            ("opentelemetry*", "traces come with the feature otel alone"),
            ("prost*", "traces come with the feature otel alone"),
        ],
    },
];

/// Modules of `taut-server` that stand on the same level.
struct Floor {
    modules: &'static [&'static str],
    /// What these modules are, so that they need nothing from this floor or from higher ones.
    reason: &'static str,
}

/// The floors of `taut-server`, from the ground up. A module imports only from the floors below its own.
const FLOORS: &[Floor] = &[
    Floor {
        modules: &["address", "certificate", "close", "identity", "limit", "metric", "origin", "place"],
        reason: "values: they import nothing of the server",
    },
    Floor {
        modules: &["app", "query", "refusals"],
        reason: "what an app is, what shards are asked, and why somebody is refused: known without those who use it",
    },
    Floor {
        modules: &["apps", "http", "trace"],
        reason: "apps while they are served, and HTTP itself: tools for what is above",
    },
    Floor {
        modules: &["acme", "connect_auth", "events", "gateway", "otel"],
        reason: "certificates, who may connect, what happens, and the backends of routes: callers pass in what these need",
    },
    Floor {
        modules: &["grace", "hub"],
        reason: "channels and users as pure values: where an owner lives is not their business",
    },
    Floor {
        modules: &["cluster"],
        reason: "the engines that nodes share: they know owners by what these ask and are told, and not where they live",
    },
    Floor { modules: &["bus"], reason: "the one way to a channel's owner" },
    Floor {
        modules: &["node", "shard", "webhooks"],
        reason: "what clients, publishers and receivers of webhooks get; none of them knows another, or where settings come from",
    },
    Floor { modules: &["config"], reason: "where settings come from: what they set up does not read them itself" },
    Floor {
        modules: &["reload", "route_test", "tls", "transports"],
        reason: "clients by HTTP, TLS, what changes while the server runs, and a route that is tried without a server",
    },
    Floor { modules: &["api"], reason: "what can be asked by HTTP" },
    Floor { modules: &["server"], reason: "puts everything together" },
    Floor { modules: &["testing"], reason: "what fuzz targets may reach, of any floor" },
];

/// What the sources under one folder or file must not name. Tests at the bottom of a file and comments are not looked at.
struct SourceRule {
    /// Paths below `crates/`; of `…/hub`, both `hub.rs` and everything in `hub/`.
    places: &'static [&'static str],
    except: &'static [&'static str],
    /// Paths or words. What ends in `::` or a word matches what begins with it: `std::net` is also `std::net::TcpStream`.
    never: &'static [&'static str],
    reason: &'static str,
}

const SOURCE_RULES: &[SourceRule] = &[
    SourceRule {
        places: &["taut-proto/src"],
        except: &[],
        never: &["std::net", "std::os", "std::fs", "std::process", "std::env", "TcpStream", "UdpSocket"],
        reason: "the protocol core does no I/O: bytes are arguments",
    },
    SourceRule {
        places: &["taut-proto/src"],
        except: &[],
        never: &["std::time::Instant", "std::time::SystemTime", "Instant", "SystemTime"],
        reason: "the protocol core has no clock: time is an argument",
    },
    SourceRule {
        places: &["taut-proto/src"],
        except: &[],
        never: &["std::thread", "std::future", "thread_local", "async", "await", "Mutex", "RwLock", "Condvar"],
        reason: "the protocol core has no threads, tasks or locks: whoever drives it has them",
    },
    SourceRule {
        places: &["taut-proto/src"],
        except: &[],
        never: &["RandomState", "println", "eprintln", "dbg", "tracing", "log"],
        reason: "the protocol core draws no random numbers and writes no log",
    },
    SourceRule {
        places: &["taut-shard/src"],
        // The tests\' kernel: its sockets may be sent to another thread, as real ones may.
        except: &["taut-shard/src/testing"],
        never: &["Mutex", "RwLock", "Condvar", "async", "await"],
        reason: "a shard never waits for another one: no locks, no futures; shards talk through mailboxes",
    },
    SourceRule {
        places: &["taut/src", "taut-shard/src", "taut-server/src"],
        // Fake peers for tests, behind a feature: they have to tell frames apart.
        except: &["taut/src/native/testing", "taut-shard/src/testing"],
        never: &["taut_proto::frame", "taut_proto::Opcode", "Opcode"],
        reason: "nobody but the protocol core looks inside a frame",
    },
    SourceRule {
        places: &["taut/src"],
        except: &["taut/src/native/tls", "taut/src/error/native/tls"],
        never: &["rustls", "rustls_native_certs", "rustls_pki_types", "tokio_rustls", "webpki", "webpki_roots"],
        reason: "`tls`, with what it reports in `error/native/tls`, is the only part of the library that names rustls",
    },
    SourceRule {
        places: &["taut/src"],
        except: &["taut/src/browser"],
        never: &["gloo_timers", "js_sys", "wasm_bindgen", "web_sys"],
        reason: "`browser` is the only part of the library that runs in a page",
    },
    SourceRule {
        places: &["taut/src/browser", "taut/src/error/browser"],
        except: &[],
        never: &["tokio", "std::net", "std::thread", "std::time::Instant", "std::time::SystemTime"],
        reason: "a page has neither sockets nor threads, and std's clock panics there",
    },
    SourceRule {
        places: &["taut-pusher/src"],
        except: &[],
        never: &[
            "std::net",
            "std::os",
            "std::fs",
            "std::process",
            "std::env",
            "std::thread",
            "std::time::Instant",
            "std::time::SystemTime",
            "Mutex",
            "RwLock",
            "async",
            "await",
        ],
        reason: "the Pusher protocol is pure values and JSON: it does no I/O, and time is an argument",
    },
    SourceRule {
        places: &["taut-server/src/transports/codec"],
        except: &[],
        never: &["taut", "taut_shard", "tokio", "hyper", "axum", "std::net", "std::thread", "Mutex", "RwLock"],
        reason: "`codec` is pure text: what pusher-js and SockJS write and read over HTTP",
    },
    SourceRule {
        places: &[
            "taut-server/src/app/public_key",
            "taut-server/src/connect_auth/token",
            "taut-server/src/connect_auth/forwarded",
        ],
        except: &[],
        never: &[
            "tokio",
            "hyper",
            "std::thread",
            "std::time::Instant",
            "std::time::SystemTime",
            "SystemTime",
            "tracing",
        ],
        reason: "who a token or a header names is found out without I/O and without a clock: time is an argument",
    },
    SourceRule {
        places: &["taut-server/src"],
        except: &["taut-server/src/otel", "taut-server/src/trace"],
        never: &["opentelemetry", "opentelemetry_http"],
        reason: "`trace` says what OpenTelemetry is told of, and what it is not: nobody else names it",
    },
    SourceRule {
        places: &["taut-server/src/hub"],
        except: &["taut-server/src/hub/simulation"],
        never: &[
            "tokio",
            "taut",
            "taut_shard",
            "hyper",
            "axum",
            "tracing",
            "std::net",
            "std::thread",
            "std::time::SystemTime",
            "SystemTime",
            "Mutex",
            "RwLock",
        ],
        reason: "`hub` is pure: commands in, effects out",
    },
    SourceRule {
        places: &["taut-server/src/shard"],
        except: &[],
        // What lies above it is refused by `FLOORS`.
        never: &["crate::http", "super::http", "super::super::http", "tokio"],
        reason: "what one client may do does not know the HTTP side",
    },
];

#[test]
fn every_crate_depends_only_on_what_the_table_of_rooms_allows() {
    let mut complaints = Vec::new();
    let rooms: BTreeSet<&str> = ROOMS.iter().map(|room| room.name).collect();
    let manifests = manifests();
    for room in ROOMS {
        match manifests.get(room.name) {
            Some(dependencies) => complaints.extend(room.complaints_about_direct(dependencies)),
            None => complaints.push(format!("{} is in the table of rooms but not in the workspace", room.name)),
        }
    }
    for name in manifests.keys().filter(|name| !rooms.contains(name.as_str())) {
        complaints.push(format!(
            "{name} is a crate of `crates/` but not in the table of rooms: say there what it may depend on"
        ));
    }
    report(&complaints);
}

#[test]
fn no_crate_lets_in_what_must_never_come_by_any_way() {
    let mut complaints = Vec::new();
    for room in ROOMS {
        let tree = cargo(&[
            "tree",
            "--frozen",
            "--package",
            room.name,
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--format",
            "{lib} {p}",
        ]);
        let crates: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        assert!(crates.contains(room.name), "cargo tree of {} should name itself, but is:\n{tree}", room.name);
        complaints.extend(room.complaints_about_tree(&crates));
    }
    report(&complaints);
}

// Of two with one name `cargo doc` keeps the pages of whichever is written last.
#[test]
fn no_two_documented_targets_have_one_name() {
    let metadata = metadata();
    let mut documented = Vec::new();
    for package in metadata["packages"].as_array().expect("cargo metadata lists packages") {
        let targets = package["targets"].as_array().expect("a package lists its targets");
        let targets = targets.iter().filter(|target| target["doc"].as_bool() == Some(true));
        documented.extend(targets.map(|target| (text(&package["name"]), text(&target["name"]))));
    }
    assert!(documented.contains(&("taut", "taut")), "{documented:?}");
    let names: BTreeSet<&str> = documented.iter().map(|(_, name)| *name).collect();
    assert_eq!(names.len(), documented.len(), "these overwrite each other's pages: {documented:?}");
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let mut complaints = Vec::new();
    for room in ROOMS {
        let modules = modules_of(room.name);
        assert!(!modules.top().is_empty(), "{} has no modules: has its folder moved?", room.name);
        complaints
            .extend(modules.circles().iter().map(|circle| format!("a circle of modules in {}: {circle}", room.name)));
    }
    report(&complaints);
}

#[test]
fn the_modules_of_the_server_import_only_from_lower_floors() {
    let server = modules_of("taut-server");
    let mut complaints = complaints_about_floors(&server, FLOORS);
    let listed = FLOORS.iter().flat_map(|floor| floor.modules);
    complaints.extend(
        listed
            .filter(|module| !server.top().contains(*module))
            .map(|module| format!("{module} has a floor in `FLOORS` but is not a module of taut-server")),
    );
    report(&complaints);
}

#[test]
fn no_source_file_names_what_its_room_must_not_know() {
    let mut complaints = Vec::new();
    for rule in SOURCE_RULES {
        let files = rule.files();
        for (path, text) in &files {
            complaints.extend(rule.complaints(path, text));
        }
    }
    report(&complaints);
}

#[test]
fn the_rules_for_sources_are_about_files_that_exist() {
    for rule in SOURCE_RULES {
        for place in rule.places {
            assert!(
                !files_at(place).is_empty(),
                "no source file at crates/{place}: has it moved? The layering rule has to move with it"
            );
        }
    }
}

impl Room {
    fn complaints_about_direct(&self, dependencies: &[Dependency]) -> Vec<String> {
        let mut complaints = Vec::new();
        for dependency in dependencies {
            let Dependency { name, optional } = dependency;
            if self.optional.contains(&name.as_str()) {
                if !optional {
                    complaints.push(format!("{} must have {name} behind a feature (`optional = true`)", self.name));
                }
            } else if !self.may.contains(&name.as_str()) {
                let allowed = [self.may, self.optional].concat().join(", ");
                complaints.push(format!("{} must not depend on {name}; it may depend on: {allowed}", self.name));
            }
        }
        complaints
    }

    fn complaints_about_tree(&self, crates: &BTreeSet<&str>) -> Vec<String> {
        let mut complaints = Vec::new();
        let users = ROOMS.iter().map(|room| room.name).filter(|&name| name == "taut-cli" && name != self.name);
        let never = self.never.iter().copied().chain(users.map(|name| (name, "nothing stands above the command")));
        for (pattern, reason) in never {
            for name in crates.iter().filter(|name| matches(pattern, name)) {
                complaints.push(format!(
                    "{} must never see {name}: {reason}. How it came in: cargo tree -p {} -e normal,build -i {name}",
                    self.name, self.name
                ));
            }
        }
        complaints
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(family) => name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_'])),
        None => name == pattern,
    }
}

impl SourceRule {
    fn complaints(&self, path: &Path, text: &str) -> Vec<String> {
        let mut complaints = Vec::new();
        for (number, named) in names(path, text) {
            // A longer rule of the same path has its say first: one complaint per name is enough.
            let broken = self
                .never
                .iter()
                .filter(|never| begins_with(&named, never) || named.rsplit("::").next() == Some(*never))
                .max_by_key(|never| never.len());
            if let Some(never) = broken {
                complaints.push(format!(
                    "{}:{number}: `{named}` ({never} is not for this place): {}",
                    path.display(),
                    self.reason
                ));
            }
        }
        complaints.dedup();
        complaints
    }

    fn files(&self) -> BTreeMap<PathBuf, String> {
        let crates = workspace().join("crates");
        let mut files: BTreeMap<_, _> = self.places.iter().flat_map(|place| files_at(place)).collect();
        let excepted = |path: &Path| {
            self.except
                .iter()
                .any(|place| path.starts_with(crates.join(place)) || path == crates.join(place).with_extension("rs"))
        };
        files.retain(|path, _| !excepted(path));
        files.into_iter().map(|(path, text)| (path.strip_prefix(workspace()).unwrap().to_owned(), text)).collect()
    }
}

/// `std::net` is where `std::net::TcpStream` begins, `std::network` is not.
fn begins_with(named: &str, rule: &str) -> bool {
    named.strip_prefix(rule).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Every path that the code of a file names, with its line: `use std::{fs, net::TcpStream};` names `std::fs` and `std::net::TcpStream`.
fn names(path: &Path, text: &str) -> Vec<(usize, String)> {
    let source = Source::read(text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    source.names.into_iter().map(|name| (name.line, name.path.join("::"))).collect()
}

/// The modules of a crate in `crates/`.
fn modules_of(name: &str) -> Crate {
    let folder = Path::new("crates").join(name).join("src");
    let files = files_at(&format!("{name}/src"));
    let sources = workspace().join(&folder);
    let relative = |path: &Path| path.strip_prefix(&sources).expect("it is one of the sources").to_owned();
    Crate::read(&folder, files.iter().map(|(path, text)| (relative(path), text.as_str())))
}

fn complaints_about_floors(server: &Crate, floors: &[Floor]) -> Vec<String> {
    let mut complaints = Vec::new();
    let floor_of = |module: &str| floors.iter().position(|floor| floor.modules.contains(&module));
    for module in server.top().into_iter().filter(|module| floor_of(module).is_none()) {
        complaints.push(format!("{module} is on no floor of taut-server: say in `FLOORS` what it may stand on"));
    }
    for arrow in server.arrows() {
        let ([from], [to]) = (&arrow.from[..], &arrow.to[..]) else { continue };
        if let (Some(own), Some(other)) = (floor_of(from), floor_of(to))
            && own <= other
        {
            let Floor { reason, .. } = floors[own];
            let place = if own == other { "on the same floor" } else { "on a higher floor" };
            complaints.push(format!("{arrow}, which is {place}. {from} belongs to: {reason}"));
        }
    }
    complaints
}

struct Dependency {
    name: String,
    optional: bool,
}

/// The direct dependencies of each crate in `crates/`, without those of its tests.
fn manifests() -> BTreeMap<String, Vec<Dependency>> {
    let metadata = metadata();
    let crates = workspace().join("crates");
    let packages = metadata["packages"].as_array().expect("cargo metadata lists packages");
    let ours = packages.iter().filter(|package| Path::new(text(&package["manifest_path"])).starts_with(&crates));
    ours.map(|package| {
        let dependencies = package["dependencies"].as_array().expect("a package lists its dependencies");
        let normal = dependencies.iter().filter(|dependency| dependency["kind"].as_str() != Some("dev"));
        let normal = normal.map(|dependency| Dependency {
            name: text(&dependency["name"]).to_owned(),
            optional: dependency["optional"].as_bool().expect("`optional` is true or false"),
        });
        (text(&package["name"]).to_owned(), normal.collect())
    })
    .collect()
}

/// What cargo knows of the workspace's own packages.
fn metadata() -> Value {
    serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps", "--frozen"]))
        .expect("cargo metadata gives JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("cargo metadata gives a text here")
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(arguments).current_dir(workspace()).output().expect("cargo can be started");
    assert!(
        output.status.success(),
        "cargo {} failed:\n{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

/// The sources of a room: of `taut-server/src/hub`, both `hub.rs` and everything in `hub/`.
fn files_at(place: &str) -> BTreeMap<PathBuf, String> {
    let place = workspace().join("crates").join(place);
    let mut files = BTreeMap::new();
    collect(&place, &mut files);
    collect(&place.with_extension("rs"), &mut files);
    files
}

fn collect(place: &Path, files: &mut BTreeMap<PathBuf, String>) {
    // A file of tests alone may use whatever it needs, as tests at the bottom of a file may.
    let is_source = place.extension().is_some_and(|extension| extension == "rs") && !place.ends_with("tests.rs");
    if place.is_file() && is_source {
        files.insert(
            place.to_owned(),
            fs::read_to_string(place).unwrap_or_else(|error| panic!("{}: {error}", place.display())),
        );
    } else if place.is_dir() {
        let entries = fs::read_dir(place).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
        entries.for_each(|entry| collect(&entry.expect("a folder can be listed").path(), files));
    }
}

fn workspace() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).expect("the workspace is two folders up")
}

fn report(complaints: &[String]) {
    assert!(
        complaints.is_empty(),
        "an arrow of the design is broken (ARCHITECTURE.md says why they point as they do):\n  - {}\n",
        complaints.join("\n  - ")
    );
}

/// The rules themselves, on made-up input: a rule that cannot be broken would hold nothing.
mod rules {
    use super::*;

    fn room(name: &str) -> &'static Room {
        ROOMS.iter().find(|room| room.name == name).unwrap()
    }

    fn rule(reason: &str) -> &'static SourceRule {
        SOURCE_RULES.iter().find(|rule| rule.reason.contains(reason)).unwrap()
    }

    fn broken(rule: &SourceRule, text: &str) -> Vec<String> {
        rule.complaints(Path::new("file.rs"), text)
    }

    #[test]
    fn a_dependency_that_is_not_in_the_table_is_refused() {
        let dependencies = [Dependency { name: "tokio".into(), optional: true }];
        let complaints = room("taut-shard").complaints_about_direct(&dependencies);
        assert!(complaints[0].starts_with("taut-shard must not depend on tokio; it may"), "{complaints:?}");
    }

    #[test]
    fn a_dependency_that_has_to_be_optional_is_refused_when_it_is_not() {
        let plain = [Dependency { name: "flate2".into(), optional: false }];
        assert_eq!(
            room("taut-proto").complaints_about_direct(&plain),
            ["taut-proto must have flate2 behind a feature (`optional = true`)"]
        );
        let behind_feature = [Dependency { name: "flate2".into(), optional: true }];
        assert!(room("taut-proto").complaints_about_direct(&behind_feature).is_empty());
    }

    #[test]
    fn a_forbidden_crate_is_found_however_deep_and_with_its_family() {
        let tree = BTreeSet::from(["taut-proto", "rand_core", "randomness", "futures-core"]);
        let complaints = room("taut-proto").complaints_about_tree(&tree);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints.iter().any(|complaint| complaint.starts_with("taut-proto must never see rand_core")));
        assert!(complaints.iter().any(|complaint| complaint.starts_with("taut-proto must never see futures-core")));
    }

    #[test]
    fn nothing_may_depend_on_the_command() {
        let tree = BTreeSet::from(["taut-server", "taut-cli"]);
        assert_eq!(room("taut-server").complaints_about_tree(&tree).len(), 1);
        assert!(room("taut-cli").complaints_about_tree(&BTreeSet::from(["taut-cli"])).is_empty());
    }

    #[test]
    fn imports_are_found_inside_braces_and_over_several_lines() {
        let complaints =
            broken(rule("does no I/O: bytes"), "use std::{\n    io,\n    net::{TcpStream as Socket, IpAddr},\n};\n");
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].starts_with("file.rs:3: `std::net::TcpStream`"), "{complaints:?}");
        assert_eq!(broken(rule("has no clock"), "use std::time::{Duration, Instant};").len(), 1);
        assert_eq!(broken(rule("does no I/O: bytes"), "use std::{net};\nuse std::os::{self, fd};\n").len(), 3);
    }

    #[test]
    fn full_paths_in_the_code_are_found() {
        assert_eq!(broken(rule("has no clock"), "let now = std::time::Instant::now();").len(), 1);
        assert_eq!(broken(rule("has no clock"), "let now = Instant::now();").len(), 1);
        assert_eq!(broken(rule("threads, tasks"), "lock: Option<Mutex<u8>>, // why").len(), 1);
        assert_eq!(broken(rule("writes no log"), "tracing::debug!(\"hello\");").len(), 1);
    }

    #[test]
    fn comments_strings_and_the_tests_at_the_bottom_are_not_looked_at() {
        let text = "/// Not a `std::time::Instant`.\nlet url = \"ws://Instant\"; // Instant\nfn f() {}\n#[cfg(test)]\nmod tests {\n    use std::time::Instant;\n}\n";
        assert!(broken(rule("has no clock"), text).is_empty());
        assert_eq!(broken(rule("has no clock"), "let url = \"ws://\"; Instant::now();").len(), 1);
        assert!(broken(rule("has no clock"), "let instants = InstantMessage::new();").is_empty());
    }

    /// What is wrong with the floors of a server in which this module says this.
    fn floors(module: &str, text: &str) -> Vec<String> {
        let file = format!("{module}.rs");
        let modules = FLOORS.iter().flat_map(|floor| floor.modules).copied().chain(["unplaced"]);
        let others: Vec<String> = modules.filter(|other| *other != module).map(|other| format!("{other}.rs")).collect();
        let files = others.iter().map(|other| (PathBuf::from(other), "")).chain([(PathBuf::from(&file), text)]);
        let complaints = complaints_about_floors(&Crate::read(Path::new("src"), files), FLOORS);
        let (without_floor, broken) =
            complaints.into_iter().partition::<Vec<_>, _>(|complaint| complaint.starts_with("unplaced is on no floor"));
        assert_eq!(without_floor.len(), 1);
        broken
    }

    #[test]
    fn the_values_of_the_server_import_only_themselves() {
        assert!(floors("close", "use crate::close::Reason;").is_empty());
        for import in ["crate::shard::PusherHandler", "crate::{close::Reason, node}", "crate::app"] {
            let broken = floors("close", &format!("use {import};"));
            assert_eq!(broken.len(), 1, "{import}");
            assert!(broken[0].starts_with("close names ") && broken[0].contains("src/close.rs:1"), "{broken:?}");
        }
    }

    #[test]
    fn the_pusher_protocol_has_neither_sockets_nor_a_clock() {
        for import in ["std::net::TcpStream", "std::time::SystemTime", "std::sync::Mutex"] {
            assert_eq!(broken(rule("pure values"), &format!("use {import};")).len(), 1, "{import}");
        }
        assert_eq!(room("taut-pusher").complaints_about_tree(&BTreeSet::from(["taut-proto", "tokio-util"])).len(), 2);
    }

    #[test]
    fn a_shards_handler_knows_neither_the_api_nor_the_settings() {
        assert!(floors("shard", "use crate::hub::Hub;").is_empty());
        for import in
            ["crate::api::events", "crate::{app, server::Server}", "crate::node", "super::api", "crate::config"]
        {
            assert_eq!(floors("shard", &format!("use {import};")).len(), 1, "{import}");
        }
        assert_eq!(broken(rule("does not know the HTTP side"), "use crate::{http::client, app};").len(), 1);
    }

    #[test]
    fn what_many_build_on_imports_none_of_them() {
        for (module, path) in [
            ("app", "connect_auth"),
            ("connect_auth", "config"),
            ("connect_auth", "bus"),
            ("bus", "shard"),
            ("trace", "api"),
        ] {
            assert_eq!(floors(module, &format!("fn f() {{ crate::{path}::f() }}")).len(), 1, "{module} {path}");
        }
    }
}
