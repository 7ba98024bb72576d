//! What a run has shown: ratios, each with its spread.

use std::fmt;
use std::fs;

use serde::Serialize;

use crate::memory::IdleMemory;
use crate::peers::{Peer, RAW};
use crate::rounds::Measured;
use crate::window::{Latency, Window};

/// All of it, as it goes into the JSON file; `Display` makes the tables.
#[derive(Serialize)]
pub struct Report<'run, Settings> {
    machine: Machine,
    settings: &'run Settings,
    #[serde(skip)]
    words: Words,
    peers: &'run [Peer],
    summaries: Vec<Summary>,
    idle_summaries: Vec<IdleSummary>,
    windows: Vec<Measured>,
    idle: Vec<IdleMemory>,
}

/// What the tables say about a benchmark.
#[derive(Debug)]
pub struct Words {
    /// How it was measured, below the name of the machine.
    pub introduction: String,
    /// What is counted, in the singular.
    pub unit: &'static str,
    /// The heads of the columns, one a case.
    pub cases: Vec<String>,
    /// The memory cases.
    pub idle: Vec<IdleCase>,
    /// Fresh processes per server and memory case.
    pub idle_starts: usize,
}

/// A memory case as the tables show it.
#[derive(Debug)]
pub struct IdleCase {
    /// The head of its column.
    pub title: String,
    /// Connections that were open.
    pub connections: usize,
}

/// On what it ran.
#[derive(Serialize)]
struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    /// `always` rounds what a process holds up to 2 MiB per mapping.
    huge_pages: String,
}

/// One server in one case.
#[derive(Serialize)]
struct Summary {
    case: usize,
    peer: usize,
    /// Messages per second, each window by the mean of the raw windows before and after it.
    throughput: Spread,
    /// Messages per second of the server's processor time, likewise: the throughput, had nothing but the server limited it.
    by_processor_time: Spread,
    /// Messages per second as such; they are this machine's of this hour.
    messages_per_second: Spread,
    /// The medians of both percentiles, if they were measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency: Option<Latency>,
    /// Share of the window in which the server's core was busy, and by how much this server kept it so.
    server_core_busy: f64,
    server_core_busy_with_server: f64,
    /// The same of the load's core.
    load_core_busy: f64,
    load_core_busy_with_load: f64,
    /// The load's processor time per message by the server's: below 1 the server is what limits.
    load_by_server: f64,
    /// Share of the time that the host took away.
    stolen: f64,
}

/// One server's memory in one idle case.
#[derive(Serialize)]
struct IdleSummary {
    idle: usize,
    peer: usize,
    /// Growth of the anonymous memory by the number of connections, in bytes.
    per_connection: Spread,
    /// The same of the proportional set size, which contains mapped files.
    per_connection_proportional: Spread,
    /// What the process held before, in bytes (proportional set size).
    before: Spread,
}

/// Order statistics of one figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Spread {
    least: f64,
    lower_quartile: f64,
    median: f64,
    upper_quartile: f64,
    most: f64,
    count: usize,
}

impl<'run, Settings> Report<'run, Settings> {
    /// Makes figures of what was measured.
    pub fn new(
        settings: &'run Settings,
        words: Words,
        peers: &'run [Peer],
        windows: Vec<Measured>,
        idle: Vec<IdleMemory>,
    ) -> Self {
        Self {
            machine: Machine::this_one(),
            summaries: summaries(words.cases.len(), peers, &windows),
            idle_summaries: idle_summaries(&words.idle, peers, &idle),
            settings,
            words,
            peers,
            windows,
            idle,
        }
    }
}

fn summaries(cases: usize, peers: &[Peer], windows: &[Measured]) -> Vec<Summary> {
    let mut summaries = Vec::new();
    for case in 0..cases {
        for peer in 0..peers.len() {
            let own: Vec<&Window> = windows
                .iter()
                .filter(|measured| measured.case == case && measured.peer == peer)
                .map(|measured| &measured.window)
                .collect();
            let median = |figure: &dyn Fn(&Window) -> f64| spread(own.iter().map(|window| figure(window))).median;
            let latency = |figure: fn(&Latency) -> f64| {
                spread(own.iter().filter_map(|window| window.latency.as_ref()).map(figure)).median
            };
            let latency = Latency { p50: latency(|latency| latency.p50), p99: latency(|latency| latency.p99) };
            summaries.push(Summary {
                case,
                peer,
                throughput: spread(ratios(windows, case, peer, Window::rate)),
                by_processor_time: spread(ratios(windows, case, peer, Window::rate_of_processor_time)),
                messages_per_second: spread(own.iter().map(|window| window.rate())),
                latency: latency.p50.is_finite().then_some(latency),
                server_core_busy: median(&|window| window.server_core_busy),
                server_core_busy_with_server: median(&|window| window.server_seconds / window.seconds),
                load_core_busy: median(&|window| window.load_core_busy),
                load_core_busy_with_load: median(&|window| window.load_seconds / window.seconds),
                load_by_server: median(&|window| window.load_cost() / window.server_cost()),
                stolen: median(&|window| window.stolen),
            });
        }
    }
    summaries
}

/// A figure of each window of a peer, by the mean of the same figure of the raw windows beside it. The raw echo's own
/// windows stand against the raw windows before and after them: that is the noise.
fn ratios(windows: &[Measured], case: usize, peer: usize, figure: fn(&Window) -> f64) -> Vec<f64> {
    let rounds = windows.iter().map(|measured| measured.round + 1).max().unwrap_or(0);
    let distance = if peer == RAW { 2 } else { 1 };
    let mut ratios = Vec::new();
    for round in 0..rounds {
        let run: Vec<&Measured> =
            windows.iter().filter(|measured| measured.case == case && measured.round == round).collect();
        for position in distance..run.len().saturating_sub(distance) {
            if run[position].peer == peer {
                let before = figure(&run[position - distance].window);
                let after = figure(&run[position + distance].window);
                ratios.push(figure(&run[position].window) * 2.0 / (before + after));
            }
        }
    }
    ratios
}

fn idle_summaries(cases: &[IdleCase], peers: &[Peer], measured: &[IdleMemory]) -> Vec<IdleSummary> {
    let mut summaries = Vec::new();
    for (number, idle) in cases.iter().enumerate() {
        for peer in 0..peers.len() {
            let own: Vec<_> = measured
                .iter()
                .filter(|measured| measured.idle == number && measured.peer == peer)
                .map(|measured| measured.memory)
                .collect();
            let growth = |before: u64, after: u64| (after as f64 - before as f64) / idle.connections as f64;
            summaries.push(IdleSummary {
                idle: number,
                peer,
                per_connection: spread(
                    own.iter().map(|memory| growth(memory.before.anonymous, memory.after.anonymous)),
                ),
                per_connection_proportional: spread(
                    own.iter().map(|memory| growth(memory.before.proportional, memory.after.proportional)),
                ),
                before: spread(own.iter().map(|memory| memory.before.proportional as f64)),
            });
        }
    }
    summaries
}

fn spread(figures: impl IntoIterator<Item = f64>) -> Spread {
    let mut figures: Vec<f64> = figures.into_iter().filter(|figure| figure.is_finite()).collect();
    figures.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let Some(last) = figures.len().checked_sub(1) else {
            return f64::NAN;
        };
        let position = share * last as f64;
        let (below, part) = (position.floor(), position.fract());
        let below = below as usize;
        let above = (below + 1).min(last);
        figures[below] * (1.0 - part) + figures[above] * part
    };
    Spread {
        least: at(0.0),
        lower_quartile: at(0.25),
        median: at(0.5),
        upper_quartile: at(0.75),
        most: at(1.0),
        count: figures.len(),
    }
}

impl Machine {
    fn this_one() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let processors = read("/proc/cpuinfo");
        let names: Vec<_> = processors
            .lines()
            .filter_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map(|(_, name)| name)
            .collect();
        Self {
            processor: (*names.first().unwrap_or(&"unknown")).to_owned(),
            cores: names.len(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            huge_pages: chosen(&read("/sys/kernel/mm/transparent_hugepage/enabled")).to_owned(),
        }
    }
}

fn capitalised(word: &str) -> String {
    let mut characters = word.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// The word in brackets, as the files below `/sys` mark the setting in force.
fn chosen(text: &str) -> &str {
    let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    chosen.map_or("unknown", |(chosen, _)| chosen)
}

impl<Settings> fmt::Display for Report<'_, Settings> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, cores, kernel, .. } = &self.machine;
        writeln!(f, "\n{processor}, {cores} cores, Linux {kernel}.")?;
        let raw = self.peers[RAW].name;
        let unit = self.words.unit;
        if !self.words.cases.is_empty() {
            writeln!(f, "{}", self.words.introduction)?;
            let title = format!("Throughput, as a share of {raw} (more is better)");
            self.write_ratios(f, &title, |summary| summary.throughput)?;
            let title = format!(
                "{}s per second of the server's processor time, as a share of {raw}'s: as if nothing but the server limited",
                capitalised(unit),
            );
            self.write_ratios(f, &title, |summary| summary.by_processor_time)?;
            if self.summaries.iter().any(|summary| summary.latency.is_some()) {
                self.write_latency(f)?;
            }
            self.write_use_of_cores(f)?;
        }
        if !self.words.idle.is_empty() {
            self.write_idle(f)?;
        }
        Ok(())
    }
}

impl<Settings> Report<'_, Settings> {
    fn write_ratios(&self, f: &mut fmt::Formatter<'_>, title: &str, figure: fn(&Summary) -> Spread) -> fmt::Result {
        writeln!(f, "\n{title}: median (quartiles) [least–most]\n")?;
        let mut table = Table::new("server", self.words.cases.iter().cloned());
        for (number, peer) in self.peers.iter().enumerate() {
            let own = self.summaries.iter().filter(|summary| summary.peer == number);
            let cells = own.map(figure).map(|spread| {
                let Spread { least, lower_quartile, median, upper_quartile, most, count } = spread;
                if count == 0 {
                    return "1".to_owned();
                }
                format!("{median:.2} ({lower_quartile:.2}–{upper_quartile:.2}) [{least:.2}–{most:.2}]")
            });
            let name = if number == RAW {
                format!("{} (against itself: the noise)", peer.name)
            } else {
                format!("{} ({})", peer.name, peer.version)
            };
            table.row(name, cells);
        }
        write!(f, "{table}")
    }

    fn write_latency(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{}s per second, and how long one took: p50, p99 (medians of the windows; they are this machine's of this hour)\n",
            capitalised(self.words.unit),
        )?;
        let mut table = Table::new("server", self.words.cases.iter().cloned());
        for (number, peer) in self.peers.iter().enumerate() {
            let cells = self.summaries.iter().filter(|summary| summary.peer == number).map(|summary| {
                let rate = summary.messages_per_second.median;
                summary.latency.map_or_else(
                    || format!("{rate:.0}/s"),
                    |Latency { p50, p99 }| format!("{rate:.0}/s, {:.2} ms, {:.2} ms", p50 * 1e3, p99 * 1e3),
                )
            });
            table.row(peer.name.to_owned(), cells);
        }
        write!(f, "{table}")
    }

    fn write_use_of_cores(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\nWho was the limit (medians): how busy the server was, how busy the load was, the load's processor time \
             per {unit} by the server's\n",
            unit = self.words.unit,
        )?;
        let mut table = Table::new("server", self.words.cases.iter().cloned());
        let mut disturbed = false;
        for (number, peer) in self.peers.iter().enumerate() {
            let cells = self.summaries.iter().filter(|summary| summary.peer == number).map(|summary| {
                let of_others = (summary.server_core_busy - summary.server_core_busy_with_server)
                    .max(summary.load_core_busy - summary.load_core_busy_with_load)
                    .max(summary.stolen);
                disturbed |= of_others > DISTURBED;
                format!(
                    "{:.0} %, {:.0} %, {:.2}",
                    summary.server_core_busy_with_server * 100.0,
                    summary.load_core_busy_with_load * 100.0,
                    summary.load_by_server,
                )
            });
            table.row(peer.name.to_owned(), cells);
        }
        write!(f, "{table}")?;
        if disturbed {
            writeln!(
                f,
                "\n!!! OTHER WORK used more than {:.0} % of a core in half of some server's windows (or the host took it \
                 away): these figures mean little. !!!",
                DISTURBED * 100.0,
            )?;
        }
        Ok(())
    }

    fn write_idle(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\nMemory of the server per idle connection: growth of its anonymous pages, median [least–most] of {} fresh \
             processes; the kernel's own\nmemory for sockets is not in it. Beside it, what the process held before \
             (proportional set size).\n",
            self.words.idle_starts,
        )?;
        let titles = self.words.idle.iter().map(|idle| idle.title.clone());
        let mut table = Table::new("server", titles.chain(["process before".to_owned()]));
        for (number, peer) in self.peers.iter().enumerate() {
            let own = || self.idle_summaries.iter().filter(|summary| summary.peer == number);
            // Some servers hold no connections.
            if own().all(|summary| summary.before.count == 0) {
                continue;
            }
            let figures = own().map(|summary| summary.per_connection);
            let before = own().next().map(|summary| summary.before.median);
            let cells = figures.map(|spread| {
                let Spread { least, median, most, .. } = spread;
                format!("{median:.0} B [{least:.0}–{most:.0}]")
            });
            let before = before.map(|bytes| format!("{:.1} MiB", bytes / 1_048_576.0));
            table.row(format!("{} ({})", peer.name, peer.version), cells.chain(before));
        }
        write!(f, "{table}")?;
        if self.machine.huge_pages == "always" {
            writeln!(
                f,
                "\n!!! Transparent huge pages are on for all: small figures are rounded up by as much as 2 MiB per process. !!!"
            )?;
        }
        Ok(())
    }
}

/// More of a core than this in other hands makes a run worthless.
const DISTURBED: f64 = 0.05;

/// Rows and columns, written so that both people and Markdown can read them.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(first: &str, others: impl IntoIterator<Item = String>) -> Self {
        let mut table = Self { rows: Vec::new() };
        table.row(first.to_owned(), others);
        table
    }

    fn row(&mut self, first: String, others: impl IntoIterator<Item = String>) {
        self.rows.push([first].into_iter().chain(others).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for (number, row) in self.rows.iter().enumerate() {
            for (cell, &width) in row.iter().zip(&widths) {
                write!(f, "| {cell:width$} ")?;
            }
            writeln!(f, "|")?;
            if number == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let line = "-".repeat(*width);
                    write!(f, "|{}{line}{}", if column == 0 { " " } else { "-" }, if column == 0 { " " } else { ":" })?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(round: usize, peer: usize, messages: u64) -> Measured {
        Measured {
            round,
            case: 0,
            peer,
            window: Window {
                messages,
                seconds: 1.0,
                server_seconds: 1.0,
                load_seconds: 0.5,
                server_core_busy: 1.0,
                load_core_busy: 0.5,
                stolen: 0.0,
                latency: None,
            },
        }
    }

    #[test]
    fn a_machine_that_slows_down_steadily_changes_no_ratio() {
        // The raw echo falls by 100 from window to window; peer 1 always does half of what raw would have done.
        let windows = [
            measured(0, RAW, 1000),
            measured(0, 1, 450),
            measured(0, RAW, 800),
            measured(0, 2, 700),
            measured(0, RAW, 600),
        ];
        assert_eq!(ratios(&windows, 0, 1, Window::rate), [0.5]);
        assert_eq!(ratios(&windows, 0, 2, Window::rate), [1.0]);
        assert_eq!(ratios(&windows, 0, RAW, Window::rate), [1.0]);
        assert_eq!(ratios(&windows, 0, 1, Window::rate_of_processor_time), [0.5]);
    }

    #[test]
    fn rounds_are_not_mixed() {
        let mut windows = Vec::new();
        for round in 0..3 {
            windows.extend([
                measured(round, RAW, 100 << round),
                measured(round, 1, 50 << round),
                measured(round, RAW, 100 << round),
            ]);
        }
        assert_eq!(ratios(&windows, 0, 1, Window::rate), [0.5; 3]);
        assert!(ratios(&windows, 0, RAW, Window::rate).is_empty());
    }

    #[test]
    fn quartiles_lie_between_the_figures_where_they_must() {
        let spread = spread([4.0, 1.0, 3.0, 2.0]);
        assert_eq!(spread.least.to_bits(), 1.0_f64.to_bits());
        assert_eq!(spread.lower_quartile.to_bits(), 1.75_f64.to_bits());
        assert_eq!(spread.median.to_bits(), 2.5_f64.to_bits());
        assert_eq!(spread.most.to_bits(), 4.0_f64.to_bits());
        assert_eq!(spread.count, 4);
    }

    #[test]
    fn the_setting_in_force_is_the_one_in_brackets() {
        assert_eq!(chosen("always [madvise] never\n"), "madvise");
        assert_eq!(chosen(""), "unknown");
    }

    #[test]
    fn no_figures_have_no_median() {
        assert!(spread([]).median.is_nan());
    }

    #[test]
    fn a_table_is_aligned_by_characters() {
        let mut table = Table::new("server", ["10 × 20 B".to_owned()]);
        table.row("raw".to_owned(), ["1".to_owned()]);
        assert_eq!(table.to_string(), "| server | 10 × 20 B |\n| ------ |----------:|\n| raw    | 1         |\n");
    }
}
