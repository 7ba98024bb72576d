//! The variables that a configuration is read from: those that are set, and those of a file.

use std::collections::HashMap;

use super::diagnostic::Diagnostic;
use super::dotenv::Variable;
use super::settings::{RETIRED, SETTINGS};
use super::text;

/// All variables that say something, the environment's before those of the file.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    values: HashMap<String, String>,
    /// Of those of the file.
    places: HashMap<String, String>,
    /// Of variables that are not used: which, and why.
    pub(crate) notes: Vec<String>,
    /// Slips in the names of ours.
    pub(crate) mistakes: Vec<Diagnostic>,
}

impl Environment {
    /// Puts both together. What Kubernetes makes of the names of services is left out, and so is what is empty, as Compose writes what is not set:
    /// of ours but for passwords and tokens, which somebody relies on.
    pub(crate) fn new(set: &HashMap<String, String>, file: Vec<Variable>, path: &str) -> Self {
        let mut environment = Self::default();
        for Variable { name, value, line } in file {
            environment.places.insert(name.clone(), format!("{path}, line {line}: {name}"));
            environment.values.insert(name, value);
        }
        for (name, value) in set.iter().filter(|(name, value)| !is_as_if_unset(name, value)) {
            environment.places.remove(name);
            environment.values.insert(name.clone(), value.clone());
        }
        let mut links: Vec<String> = environment
            .values
            .iter()
            .filter(|(name, value)| is_service_link(name, value))
            .map(|(name, _)| name.clone())
            .collect();
        links.sort_unstable();
        environment.values.retain(|name, value| links.binary_search(name).is_err() && !is_as_if_unset(name, value));
        if !links.is_empty() {
            let links = links.join(", ");
            environment
                .notes
                .push(format!("Kubernetes has made these of the names of services, and they are not used: {links}"));
        }
        environment.find_slips();
        environment
    }

    pub(crate) fn values(&self) -> &HashMap<String, String> {
        &self.values
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Where a variable is set.
    pub(crate) fn place(&self, name: &str) -> String {
        self.places.get(name).cloned().unwrap_or_else(|| name.to_owned())
    }

    /// A name that is almost one of ours is a slip, and so is one that was to name an app: without it, something else would be served. Any other may be
    /// meant for another program.
    fn find_slips(&mut self) {
        let unknown = |name: &&String| {
            name.starts_with(OURS)
                && !OF_OTHER_COMMANDS.contains(&name.as_str())
                && !SETTINGS.iter().chain(RETIRED).any(|setting| setting.environment == name.as_str())
        };
        let mut names: Vec<String> = self.values.keys().filter(unknown).cloned().collect();
        names.sort_unstable();
        for name in names {
            let (place, meant) = (self.place(&name), meant(&name));
            let remedy = match meant {
                Some(Meant { variable, .. }) => format!("did you mean {variable}?"),
                None => "docs/configuration.md lists all of them".to_owned(),
            };
            if meant.is_some_and(|meant| meant.is_near) || name.starts_with("TAUT_APP") {
                self.mistakes.push(Diagnostic::new(place, format!("there is no such variable; {remedy}")));
            } else {
                self.notes.push(format!("{place} is not used: there is no such variable; {remedy}"));
            }
        }
    }
}

/// The variable of ours that was probably meant.
struct Meant {
    variable: &'static str,
    /// It differs by no more than slips of the pen.
    is_near: bool,
}

fn meant(name: &str) -> Option<Meant> {
    let plain = |variable: &str| variable.trim_start_matches(OURS).to_ascii_lowercase().replace('_', "-");
    let known: Vec<(String, &'static str)> = SETTINGS
        .iter()
        .flat_map(|setting| {
            [plain(setting.environment), setting.name.to_owned()].map(|text| (text, setting.environment))
        })
        .collect();
    let wanted = plain(name);
    let nearest = known
        .iter()
        .map(|(text, variable)| (text::distance(&wanted, text), text, *variable))
        .filter(|(distance, text, _)| *distance <= text.len().max(3) / 3)
        .min_by_key(|(distance, ..)| *distance);
    if let Some((.., variable)) = nearest {
        return Some(Meant { variable, is_near: true });
    }
    // `tls-cert` is cut off; `cache` may be anybody's.
    let mut longer = known.iter().filter(|(text, _)| wanted.contains('-') && text.starts_with(&wanted));
    if let Some(&(_, variable)) = longer.next()
        && longer.all(|(_, other)| *other == variable)
    {
        return Some(Meant { variable, is_near: true });
    }
    let nearest = text::nearest(&wanted, known.iter().map(|(text, _)| text.as_str()))?;
    known.iter().find(|(text, _)| text == nearest).map(|&(_, variable)| Meant { variable, is_near: false })
}

/// Whether it counts as if it were not there.
fn is_as_if_unset(name: &str, value: &str) -> bool {
    let is_secret = || SETTINGS.iter().any(|setting| setting.environment == name && setting.secret);
    value.trim().is_empty() && PREFIXES.iter().any(|prefix| name.starts_with(prefix)) && !is_secret()
}

/// Whether Kubernetes has made this variable for a service, which is called `taut`, `soketi` or `reverb-server` as likely as not: `TAUT_PORT` is
/// `tcp://10.0.0.1:6001`, and `TAUT_SERVICE_HOST`, `TAUT_SERVICE_PORT_HTTP` and `TAUT_PORT_6001_TCP_ADDR` go with it. Docker's links are alike.
fn is_service_link(name: &str, value: &str) -> bool {
    if !PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return false;
    }
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let (_, port) = name.rsplit_once("_PORT_").unwrap_or_default();
    let of_port = port.split_once('_').is_some_and(|(number, rest)| {
        let protocol = rest.split('_').next().unwrap_or_default();
        number.parse::<u16>().is_ok() && ["TCP", "UDP", "SCTP"].contains(&protocol)
    });
    is_url
        || of_port
        || name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
}

/// What other commands read, on the same machine and perhaps from the same file.
const OF_OTHER_COMMANDS: [&str; 3] = ["TAUT_APP_URL", "TAUT_BEARER", "TAUT_ENCRYPTION_KEY"];

/// How our variables begin.
const OURS: &str = "TAUT_";

/// How all variables begin that are looked at.
const PREFIXES: [&str; 4] = [OURS, "SOKETI_", "REVERB_", "PUSHER_"];

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let set = variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Environment::new(&set, Vec::new(), "")
    }

    #[test]
    fn what_kubernetes_makes_of_services_is_left_out_and_told_once() {
        let links = [
            ("TAUT_SERVICE_HOST", "10.0.0.1"),
            ("TAUT_SERVICE_PORT", "6001"),
            ("TAUT_SERVICE_PORT_HTTP", "6001"),
            ("TAUT_PORT", "tcp://10.0.0.1:6001"),
            ("TAUT_PORT_6001_TCP", "tcp://10.0.0.1:6001"),
            ("TAUT_PORT_6001_TCP_PROTO", "tcp"),
            ("TAUT_PORT_6001_TCP_PORT", "6001"),
            ("TAUT_PORT_6001_TCP_ADDR", "10.0.0.1"),
            ("TAUT_METRICS_PORT_9601_TCP_ADDR", "10.0.0.1"),
            ("SOKETI_PORT", "tcp://10.0.0.2:6001"),
            ("REVERB_SERVER_PORT", "tcp://10.0.0.3:8080"),
        ];
        let read = environment(&[&links[..], &[("SOKETI_HOST", "::1"), ("OTHER_PORT", "tcp://10.0.0.4:1")]].concat());
        assert!(links.iter().all(|(name, _)| read.get(name).is_none()), "{read:?}");
        assert_eq!((read.get("SOKETI_HOST"), read.get("OTHER_PORT")), (Some("::1"), Some("tcp://10.0.0.4:1")));
        assert!(read.mistakes.is_empty(), "{:?}", read.mistakes);
        let [note] = read.notes.as_slice() else { panic!("{:?}", read.notes) };
        assert!(note.contains("SOKETI_PORT, TAUT_METRICS_PORT_9601_TCP_ADDR, TAUT_PORT, "), "{note}");
    }

    #[test]
    fn a_slip_in_a_name_is_told_with_the_name_that_was_meant() {
        for (slip, meant) in [
            ("TAUT_LISTN", "did you mean TAUT_LISTEN?"),
            ("TAUT_APP", "did you mean TAUT_APPS?"),
            ("TAUT_LOG_LEVEL", "did you mean TAUT_LOG?"),
            ("TAUT_MAX_CONECTIONS", "did you mean TAUT_MAX_CONNECTIONS?"),
            ("TAUT_TLS_CERT", "did you mean TAUT_TLS_CERTIFICATE?"),
            ("TAUT_APPLICATIONS", "docs/configuration.md lists all of them"),
        ] {
            let [mistake] = &environment(&[(slip, "1")]).mistakes[..] else { panic!("{slip}") };
            let told = format!("{slip}: there is no such variable; {meant}");
            assert!(mistake.to_string().starts_with(&told), "{mistake}");
        }
    }

    #[test]
    fn a_name_that_may_be_another_programs_is_noted() {
        for (name, meant) in [
            ("TAUT_CACHE", "did you mean TAUT_MAX_CACHE?"),
            ("TAUT_BIN", "docs/configuration.md lists all of them"),
            ("TAUT_PORT", "docs/configuration.md lists all of them"),
        ] {
            let read = environment(&[(name, "1")]);
            assert!(read.mistakes.is_empty(), "{:?}", read.mistakes);
            assert_eq!(read.notes, [format!("{name} is not used: there is no such variable; {meant}")]);
        }
        for name in ["TAUTOLOGY", "taut_listen", "TAUT_LISTEN", "TAUT_APP_URL", "TAUT_BEARER", "TAUT_ENCRYPTION_KEY"] {
            let read = environment(&[(name, "1")]);
            assert!(read.mistakes.is_empty() && read.notes.is_empty(), "{name}");
        }
    }

    #[test]
    fn what_is_empty_is_as_if_it_were_not_set_but_for_secrets() {
        for setting in SETTINGS {
            for empty in ["", " "] {
                let read = environment(&[(setting.environment, empty)]);
                assert_eq!(read.get(setting.environment).is_some(), setting.secret, "{}", setting.environment);
            }
        }
        assert!(environment(&[("REVERB_APP_KEY", "")]).get("REVERB_APP_KEY").is_none());
        // Nor does it hide what the file says.
        let set = HashMap::from([("TAUT_SHARDS".to_owned(), String::new())]);
        let file = Variable { name: "TAUT_SHARDS".to_owned(), value: "3".to_owned(), line: 2 };
        let read = Environment::new(&set, vec![file], ".env");
        assert_eq!(
            (read.get("TAUT_SHARDS"), read.place("TAUT_SHARDS")),
            (Some("3"), ".env, line 2: TAUT_SHARDS".to_owned())
        );
    }
}
