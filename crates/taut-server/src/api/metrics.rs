//! `GET /metrics`: what there is and what has happened, for Prometheus.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use subtle::ConstantTimeEq;
use taut_proto::handshake::bearer_credentials;

use super::console::Login;
use super::exposition::Exposition;
use super::listener::{self, Listener};
use super::{Context, asked};
use crate::apps::{App, Apps, Fallback};
use crate::cluster::{self, Phase};
use crate::gateway::{Route, Routes};
use crate::http::answer::ApiError;
use crate::metric::{Description, Kind};
use crate::query::{EventLoops, Statistics, Traffic};
use crate::tls::Shown;
use crate::webhooks::{self, Webhooks};

/// `GET /metrics`: shows the metrics to whoever may see them.
///
/// # Cancel safety
/// Nothing is lost: it only asks.
pub(crate) async fn show(
    State(context): State<Arc<Context>>,
    Extension(listener): Extension<Listener>,
    request: Request,
) -> Result<Response, ApiError> {
    check_access(&context, listener, &request, "The metrics")?;
    let (statistics, nodes) = tokio::join!(asked(context.node().statistics()), context.node().nodes());
    let statistics = statistics?;
    let mut page = Exposition::default();
    let apps = context.node().apps();
    write_connections(&mut page, &apps.all());
    write_refusals(&mut page, apps);
    write_statistics(&mut page, &statistics, &apps.all());
    context.traffic().write(&mut page);
    write_webhooks(&mut page, context.webhooks());
    write_routes(&mut page, &context.gateway.routes());
    if let Some(state) = context.node().cluster() {
        write_cluster(&mut page, state, nodes.as_deref());
    }
    if let Some(certificate) = &context.certificate {
        write_certificate(&mut page, certificate);
    }
    write_process(&mut page, context.started.elapsed());
    Ok(([(CONTENT_TYPE, TEXT)], page.into_text()).into_response())
}

/// A token, where one is set, opens the metrics on every listener. Without one they are open on listeners of their own, and nowhere else. `what` is what
/// somebody wants to see.
pub(super) fn check_access(
    context: &Context,
    listener: Listener,
    request: &Request,
    what: &str,
) -> Result<(), ApiError> {
    if let Some(token) = &context.metrics_token {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| str::from_utf8(value.as_bytes()).ok());
        let shown = header.and_then(bearer_credentials);
        // In constant time: how long it takes must not tell how much of it was right.
        let is_right = shown.is_some_and(|shown| token.reveal().as_bytes().ct_eq(shown.as_bytes()).into());
        return if is_right { Ok(()) } else { Err(unauthorized(what)) };
    }
    match listener {
        Listener::Metrics => Ok(()),
        Listener::Console if context.console_login(listener) == Some(Login::Nothing) => listener::check_host(request),
        Listener::Console | Listener::Clients => Err(ApiError::new(
            StatusCode::FORBIDDEN,
            format!(
                "{what} are not open here: start the server with metrics-listen, which serves them on a listener of their own, or with metrics-token, \
                 which opens them to who has it."
            ),
        )),
    }
}

fn unauthorized(what: &str) -> ApiError {
    let error = format!("{what} require the bearer token that the server was started with (metrics-token).");
    ApiError::new(StatusCode::UNAUTHORIZED, error).challenge("Bearer")
}

fn write_connections(page: &mut Exposition, apps: &[Arc<App>]) {
    page.begin(&CONNECTIONS);
    for app in apps {
        let carried = Fallback::ALL.map(|fallback| (fallback.name(), app.carried(fallback)));
        let all_carried: usize = carried.iter().map(|(_, count)| count).sum();
        // One that comes or goes in this moment may be counted on one side only.
        let by_websocket = ("ws", app.connections().saturating_sub(all_carried));
        for (transport, count) in [by_websocket].into_iter().chain(carried) {
            page.sample(&[("app", app.id()), ("transport", transport)], count);
        }
    }
}

/// Only the reasons that there have been, or each app would have dozens of samples.
fn write_refusals(page: &mut Exposition, apps: &Apps) {
    page.begin(&REFUSALS);
    let all = apps.all();
    let of_apps = all.iter().map(|app| (app.id(), app.refusals()));
    for (app, refusals) in of_apps.chain([("", apps.refusals())]) {
        for (reason, count) in refusals.counts() {
            page.sample(&[("app", app), ("what", reason.what()), ("reason", reason.name())], count);
        }
    }
}

fn write_statistics(page: &mut Exposition, statistics: &Statistics, apps: &[Arc<App>]) {
    for metric in Traffic::METRICS {
        page.begin(&metric.about);
        for app in apps {
            // An app that nobody has used yet has not been counted.
            page.sample(&[("app", app.id())], statistics.apps.get(app.index().get()).map_or(0, metric.value));
        }
    }
    page.singles(EventLoops::METRICS, &statistics.event_loops);
    page.begin(&DELIVERY);
    page.durations(&[], &statistics.latency);
}

/// What waits, for how long, and what has happened since the start.
fn write_webhooks(page: &mut Exposition, webhooks: &Webhooks) {
    let statistics = webhooks.statistics();
    page.singles(webhooks::Statistics::METRICS, &statistics);
    page.single(&OLDEST_WEBHOOK, webhooks.oldest().unwrap_or_default().as_secs_f64());
}

/// Nothing where there are no routes.
fn write_routes(page: &mut Exposition, routes: &Routes) {
    if routes.is_empty() {
        return;
    }
    let mut of_each = |about: &Description, value: fn(&Route) -> usize| {
        page.begin(about);
        for route in routes.all() {
            page.sample(&[("route", route.name())], value(route));
        }
    };
    of_each(&ROUTE_CONNECTIONS, |route| route.statistics().connections());
    of_each(&ROUTE_WAITING, |route| route.statistics().waiting());
    of_each(&ROUTE_BREAKER, |route| usize::from(route.is_breaker_open()));
    page.begin(&ROUTE_EVENTS);
    for route in routes.all() {
        for (result, count) in route.statistics().results() {
            page.sample(&[("route", route.name()), ("result", result)], count);
        }
    }
    page.begin(&ROUTE_DURATIONS);
    for route in routes.all() {
        page.durations(&[("route", route.name())], &route.statistics().durations());
    }
}

/// How it stands with the engine. How many nodes there are is left out where nobody knows.
fn write_cluster(page: &mut Exposition, state: cluster::State, nodes: Option<&[cluster::Node]>) {
    page.begin(&CLUSTER_STATE);
    for phase in Phase::ALL {
        page.sample(&[("state", phase.name())], u8::from(phase == state.phase));
    }
    page.single(&CLUSTER_LOSSES, state.losses);
    page.single(&CLUSTER_WAITING, state.waiting);
    page.single(&CLUSTER_HELD_BACK, state.held_back);
    page.single(&CLUSTER_LAG, state.lag.as_secs_f64());
    if let Some(nodes) = nodes {
        page.single(&CLUSTER_NODES, nodes.len());
    }
}

/// Without a time as long as there is no certificate.
fn write_certificate(page: &mut Exposition, certificate: &Shown) {
    if let Some(expiry) = certificate.expiry() {
        page.single(&CERTIFICATE_EXPIRY, expiry.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    }
    if let Some(acme) = &certificate.acme {
        page.begin(&ACME_ORDERS);
        for (outcome, count) in acme.outcomes() {
            page.sample(&[("outcome", outcome)], count);
        }
    }
}

/// Under the names that Prometheus' own clients use, where there is one.
fn write_process(page: &mut Exposition, uptime: Duration) {
    page.begin(&BUILD);
    page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.single(&UPTIME, uptime.as_secs_f64());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = now.saturating_sub(uptime).as_secs_f64();
    page.single(&PROCESS_START, start);
    // Put together in memory by the kernel: nothing waits here. Other systems than Linux have no such files.
    let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    if let Some(seconds) = cpu_seconds(&read("stat")) {
        page.single(&PROCESS_CPU, seconds);
    }
    let status = read("status");
    let memory = [(&PROCESS_RESIDENT, "VmRSS:"), (&PROCESS_VIRTUAL, "VmSize:")];
    for (about, bytes) in memory.into_iter().filter_map(|(about, name)| Some((about, memory_in(&status, name)?))) {
        page.single(about, bytes);
    }
    if let Some(count) = open_descriptors() {
        page.single(&PROCESS_OPEN_FDS, count);
    }
    if let Some(most) = most_descriptors(&read("limits")) {
        page.single(&PROCESS_MAX_FDS, most);
    }
}

/// Time on the processors, from Linux' `/proc/self/stat`: of the program itself and of the kernel on its behalf.
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The second field is the program's name in parentheses, and a name may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some((f64::from(ticks()?) + f64::from(ticks()?)) / TICKS_PER_SECOND)
}

/// Bytes, from Linux' `/proc/self/status`.
fn memory_in(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

/// Linux says how many there are as the size of a folder, since 6.2; before that they are counted.
fn open_descriptors() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    match fs::metadata(FOLDER).ok()?.len() {
        0 => Some(fs::read_dir(FOLDER).ok()?.count() as u64),
        count => Some(count),
    }
}

/// The soft limit, from Linux' `/proc/self/limits`.
fn most_descriptors(limits: &str) -> Option<u64> {
    let values = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    values.split_whitespace().next()?.parse().ok()
}

/// Linux shows times to programs in hundredths of a second, on all of its platforms.
const TICKS_PER_SECOND: f64 = 100.0;

const CONNECTIONS: Description = Description::new(
    "taut_connections",
    Kind::Gauge,
    &["app", "transport"],
    "Open connections of clients: WebSockets (`ws`), and those that come by HTTP (`xhr_streaming`, `xhr_polling`, `sockjs`, and the streams of routes, `sse`).",
);

const REFUSALS: Description = Description::new(
    "taut_refusals_total",
    Kind::Counter,
    &["app", "what", "reason"],
    "Connections, subscriptions, sign-ins, client events and requests that were refused; `app` is empty if they named none.",
);

const DELIVERY: Description = Description::new(
    "taut_delivery_duration_seconds",
    Kind::Histogram,
    &[],
    "Time from an event's publisher to the queues of the sockets that it goes to.",
);

const OLDEST_WEBHOOK: Description = Description::new(
    "taut_webhooks_oldest_seconds",
    Kind::Gauge,
    &[],
    "How long the oldest webhook request that waits has waited.",
);

const ROUTE_CONNECTIONS: Description =
    Description::new("taut_route_connections", Kind::Gauge, &["route"], "Open connections of a route.");

const ROUTE_WAITING: Description = Description::new(
    "taut_route_events_waiting",
    Kind::Gauge,
    &["route"],
    "Events that wait for their turn at the route's backend, or for its answer.",
);

const ROUTE_BREAKER: Description = Description::new(
    "taut_route_breaker_open",
    Kind::Gauge,
    &["route"],
    "1 while the route's backend is left alone because most events failed, and 0 otherwise.",
);

const ROUTE_EVENTS: Description = Description::new(
    "taut_route_events_total",
    Kind::Counter,
    &["route", "result"],
    "Events that a route's backend was told, by what came of them: `answered`, `refused` (a client was not let in), `failed`, `late`, `busy`, `rejected` (4xx).",
);

const ROUTE_DURATIONS: Description = Description::new(
    "taut_route_event_duration_seconds",
    Kind::Histogram,
    &["route"],
    "Time from an event to what came of it, further attempts included.",
);

const CLUSTER_STATE: Description = Description::new(
    "taut_cluster_state",
    Kind::Gauge,
    &["state"],
    "1 for the state in which the node is, and 0 for the others: `starting`, `joined`, `away` (the engine cannot be reached), `rejoining`.",
);

const CLUSTER_LOSSES: Description =
    Description::new("taut_cluster_losses_total", Kind::Counter, &[], "Times that the engine of the cluster was lost.");

const CLUSTER_WAITING: Description =
    Description::new("taut_cluster_waiting", Kind::Gauge, &[], "Requests of this node that wait for the engine.");

const CLUSTER_HELD_BACK: Description = Description::new(
    "taut_cluster_held_back",
    Kind::Gauge,
    &[],
    "Removals in the cluster that this node holds back before it tells webhooks: they may still be undone. 0 on nodes whose turn it is not.",
);

const CLUSTER_LAG: Description =
    Description::new("taut_cluster_lag_seconds", Kind::Gauge, &[], "How long the engine took to answer last.");

const CLUSTER_NODES: Description = Description::new(
    "taut_cluster_nodes",
    Kind::Gauge,
    &[],
    "Nodes of the cluster that are alive, this one included; absent while the engine cannot be asked.",
);

const CERTIFICATE_EXPIRY: Description = Description::new(
    "taut_tls_certificate_expiry_timestamp_seconds",
    Kind::Gauge,
    &[],
    "Unix time at which the certificate that clients are shown expires; absent while there is none.",
);

const ACME_ORDERS: Description = Description::new(
    "taut_acme_orders_total",
    Kind::Counter,
    &["outcome"],
    "Orders of a certificate by ACME: `issued` and `failed`.",
);

const BUILD: Description =
    Description::new("taut_build_info", Kind::Gauge, &["version"], "Always 1; the version is in the label.");

const UPTIME: Description =
    Description::new("taut_uptime_seconds", Kind::Gauge, &[], "Time since the server was started.");

const PROCESS_START: Description =
    Description::new("process_start_time_seconds", Kind::Gauge, &[], "When the server was started, since 1970.");

const PROCESS_CPU: Description = Description::new(
    "process_cpu_seconds_total",
    Kind::Counter,
    &[],
    "Processor time that the process has used, also in the kernel.",
);

const PROCESS_RESIDENT: Description =
    Description::new("process_resident_memory_bytes", Kind::Gauge, &[], "Memory that the process takes.");

const PROCESS_VIRTUAL: Description = Description::new(
    "process_virtual_memory_bytes",
    Kind::Gauge,
    &[],
    "Address space that the process has reserved, whether it takes memory or not.",
);

const PROCESS_OPEN_FDS: Description =
    Description::new("process_open_fds", Kind::Gauge, &[], "File descriptors that are open: sockets, most of them.");

const PROCESS_MAX_FDS: Description =
    Description::new("process_max_fds", Kind::Gauge, &[], "File descriptors that may be open.");

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::refusals::RefusalReason;

    #[test]
    fn the_memory_is_read_in_kibibytes() {
        let status = "Name:\ttaut\nVmPeak:\t  9 kB\nVmSize:\t 10 kB\nVmRSS:\t   1234 kB\nThreads:\t3\n";
        assert_eq!(memory_in(status, "VmRSS:"), Some(1_263_616));
        assert_eq!(memory_in(status, "VmSize:"), Some(10_240));
        assert_eq!(memory_in("VmRSS:\tmuch\n", "VmRSS:"), None);
        assert_eq!(memory_in("", "VmRSS:"), None);
    }

    #[test]
    fn descriptors_are_counted_and_their_soft_limit_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(most_descriptors(limits), Some(1024));
        assert_eq!(
            most_descriptors("Max open files            unlimited            unlimited            files\n"),
            None
        );
        assert_eq!(most_descriptors(""), None);
        #[cfg(target_os = "linux")]
        {
            let before = open_descriptors().expect("a folder");
            let held: Vec<_> = (0..100).map(|_| fs::File::open("/dev/null").expect("a file")).collect();
            // Other tests open and close some as well.
            assert!(open_descriptors().expect("a folder") >= before.saturating_sub(50) + 50, "{before}");
            drop(held);
        }
    }

    #[test]
    fn the_time_on_the_processors_is_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 3 0 250 50 9 9 20 0 4 0 1000 1 2";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("7 (taut) S 1"), None);
        assert_eq!(cpu_seconds(""), None);
    }

    /// `UPDATE_DOCS=1 cargo test -p taut-server --lib the_page_of_metrics`
    #[test]
    fn the_page_of_metrics_says_what_the_code_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        let page = documentation();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(path, &page).expect("docs/metrics.md");
        }
        let written = fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == page,
            "docs/metrics.md is not what the code says: UPDATE_DOCS=1 cargo test -p taut-server --lib the_page_of_metrics"
        );
    }

    fn documentation() -> String {
        let mut page = HEAD.to_owned();
        let of = |metrics: &[crate::metric::Metric<Traffic>]| -> Vec<Description> {
            metrics.iter().map(|metric| metric.about).collect()
        };
        let event_loops = EventLoops::METRICS.iter().map(|metric| metric.about);
        let webhooks = webhooks::Statistics::METRICS.iter().map(|metric| metric.about);
        let http = [super::super::traffic::REQUESTS, super::super::traffic::DURATIONS];
        let process = [
            BUILD,
            UPTIME,
            PROCESS_START,
            PROCESS_CPU,
            PROCESS_RESIDENT,
            PROCESS_VIRTUAL,
            PROCESS_OPEN_FDS,
            PROCESS_MAX_FDS,
        ];
        for (title, metrics) in [
            ("Apps", [vec![CONNECTIONS, REFUSALS], of(Traffic::METRICS)].concat()),
            ("Event loops", event_loops.chain([DELIVERY]).collect()),
            ("HTTP requests", http.to_vec()),
            ("Webhooks", webhooks.chain([OLDEST_WEBHOOK]).collect()),
            (
                "Routes, where there are any",
                vec![ROUTE_CONNECTIONS, ROUTE_WAITING, ROUTE_BREAKER, ROUTE_EVENTS, ROUTE_DURATIONS],
            ),
            (
                "The cluster, on its nodes only",
                vec![CLUSTER_STATE, CLUSTER_LOSSES, CLUSTER_WAITING, CLUSTER_HELD_BACK, CLUSTER_LAG, CLUSTER_NODES],
            ),
            ("The certificate, where clients connect by TLS", vec![CERTIFICATE_EXPIRY, ACME_ORDERS]),
            ("The process", process.to_vec()),
        ] {
            let _ = writeln!(page, "\n## {title}\n\n| metric | type | labels | |\n|---|---|---|---|");
            for Description { name, kind, help, labels } in metrics {
                let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
                let _ = writeln!(page, "| `{name}` | {} | {} | {help} |", kind.name(), labels.join(", "));
            }
        }
        page += REASONS;
        for reason in RefusalReason::ALL {
            let _ = writeln!(page, "| `{}` | `{}` | {} |", reason.what(), reason.name(), reason.help());
        }
        page
    }

    const HEAD: &str = "\
# Metrics

This page is generated from the program.

`/metrics` is in Prometheus' text format. `metrics-listen` serves it on a listener of its own, and `metrics-token` opens it where clients connect;
[configuration.md](configuration.md) has both. With `metrics-listen = \"9601\"`:

```yaml
scrape_configs:
  - job_name: taut
    static_configs: [{ targets: [\"127.0.0.1:9601\"] }]
```

Counters count from the start of the process. The number of labels is bounded, whatever strangers send. Only Linux has the numbers of the process,
except for its start.

[alerts.md](alerts.md) has alerts and a dashboard that are made of these metrics.
";

    const REASONS: &str = "
## What is refused, and why

`taut_refusals_total` counts by these reasons, and has a sample for each reason that there has been. The log says of each, at the level `info`, to whom
it was refused: at most ten lines of one reason in ten seconds, and then how many more there were. `taut_handshakes_refused_total` counts what the event
loops refused or gave up, also what never came as far as an app.

| `what` | `reason` | |
|---|---|---|
";
}
