//! What changes while the server runs: a configuration that is read again, and the apps in its database.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::apps::Apps;
use crate::config::{AppsSnapshot, Config, ConfigError, Diagnostic, SETTINGS};

/// The configuration that holds now, and the apps that follow from it and from the database.
#[derive(Debug)]
pub(crate) struct Reload {
    apps: Arc<Apps>,
    state: Mutex<State>,
    reloaded: Notify,
}

#[derive(Debug)]
struct State {
    config: Config,
    stored: AppsSnapshot,
    /// What went wrong with the database last time, so that it is logged once and not every few seconds.
    complaint: String,
}

impl Reload {
    /// Reads the apps for the first time. It waits for the database, if there is one.
    #[cfg(test)]
    fn start(config: &Config) -> Result<Self, ConfigError> {
        Self::with(config, config.stored_apps()?)
    }

    /// The first apps, of which some may come from the database.
    pub(crate) fn with(config: &Config, stored: AppsSnapshot) -> Result<Self, ConfigError> {
        for mistake in &stored.mistakes {
            tracing::warn!("{mistake}");
        }
        for note in &stored.notes {
            tracing::info!("{note}");
        }
        let complaint = complaint(&stored);
        let apps = Arc::new(config.assemble_apps(&stored)?);
        Ok(Self {
            apps,
            state: Mutex::new(State { config: config.clone(), stored, complaint }),
            reloaded: Notify::new(),
        })
    }

    pub(crate) fn apps(&self) -> &Arc<Apps> {
        &self.apps
    }

    /// Goes on with another configuration; gives the names of those settings that hold from the next start only.
    ///
    /// # Errors
    /// When it cannot be used; then nothing has changed.
    pub(crate) fn reload(&self, config: &Config) -> Result<Vec<&'static str>, ConfigError> {
        let mut state = self.state();
        if !config.names_apps() && self.apps.development_app().is_none() {
            // A file that was cut off would put an app whose secret everybody knows in the place of all.
            return Err(Diagnostic::new("", NO_APP_ANY_MORE).into());
        }
        config.replace_apps(&self.apps, &state.stored)?;
        let later = at_the_next_start(&state.config, config);
        state.config = config.clone();
        drop(state);
        self.reloaded.notify_one();
        Ok(later)
    }

    /// Reads the database again and again; `changed` is told when the apps are others.
    ///
    /// # Cancel safety
    /// It never ends by itself. When it is dropped, the apps stay as they are.
    pub(crate) async fn follow_database(&self, changed: impl Fn()) {
        loop {
            let pause = {
                let state = self.state();
                state.config.apps_database.as_ref().map(|_| state.config.apps_reload)
            };
            // After a reload at once: it may name another database, and SIGHUP asks for all to be read.
            match pause {
                Some(pause) => drop(tokio::time::timeout(pause, self.reloaded.notified()).await),
                None => self.reloaded.notified().await,
            }
            let config = self.state().config.clone();
            match config.read_stored_apps().await {
                Ok(stored) => {
                    if self.take(stored) {
                        changed();
                    }
                }
                Err(mistake) => self.complain(format!("{mistake}; the apps that are known are served on")),
            }
        }
    }

    /// Takes over what the database has; says whether that is something else than before.
    fn take(&self, mut stored: AppsSnapshot) -> bool {
        let mut state = self.state();
        for id in std::mem::take(&mut stored.broken) {
            // Whoever makes a slip while changing an app does not mean to end it.
            stored.apps.extend(state.stored.apps.iter().find(|known| known.app.id == id).cloned());
        }
        for draft in stored.apps.iter_mut().filter(|draft| draft.lacks_webhooks) {
            // Nor to end a webhook.
            let known = state.stored.apps.iter().find(|known| known.app.id == draft.app.id && !known.lacks_webhooks);
            if let Some(known) = known {
                draft.clone_from(known);
                let place = format!("apps-database, app {:?}", draft.app.id);
                stored.mistakes.push(Diagnostic::new(place, "it is served as it was until its webhooks can be used"));
            }
        }
        let complaint = complaint(&stored);
        if complaint != state.complaint {
            for mistake in &stored.mistakes {
                tracing::warn!("{mistake}");
            }
            if complaint.is_empty() {
                tracing::info!("the apps of the database can be read again");
            }
            state.complaint = complaint;
        }
        if stored.apps == state.stored.apps {
            return false;
        }
        match state.config.replace_apps(&self.apps, &stored) {
            Ok(()) => {
                tracing::info!(apps = stored.apps.len(), "the apps of the database have changed");
                state.stored = stored;
                true
            }
            Err(error) => {
                drop(state);
                self.complain(format!("{error}; the apps that are known are served on"));
                false
            }
        }
    }

    fn complain(&self, complaint: String) {
        let mut state = self.state();
        if state.complaint != complaint {
            tracing::warn!("{complaint}");
            state.complaint = complaint;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn complaint(stored: &AppsSnapshot) -> String {
    stored.mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The settings that differ and that a running server does not take on.
fn at_the_next_start(before: &Config, after: &Config) -> Vec<&'static str> {
    SETTINGS
        .iter()
        .filter(|setting| !setting.live && setting.differs(before, after))
        .map(|setting| setting.name)
        .collect()
}

const NO_APP_ANY_MORE: &str = "no app is left in the configuration: the development app does not take the place of others while the server \
     runs; name an app, or start the server anew";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{AppConfig, Webhook};

    fn app(text: &str) -> AppConfig {
        AppConfig::parse(text).expect(text)
    }

    #[test]
    fn each_setting_that_waits_for_the_next_start_is_named_and_no_other() {
        // Without the feature, no database can be named.
        let can_be_set = |name| cfg!(feature = "database") || name != "apps-database";
        for setting in SETTINGS.iter().filter(|setting| can_be_set(setting.name)) {
            let values = [
                "on",
                "off",
                "7",
                "127.0.0.1:7",
                "/seven",
                "drop",
                "json",
                "10.0.0.7",
                "1:a:x",
                "a-long-password-without-spaces",
                "warn",
                "sqlite:x",
                "seven",
                "redis://seven",
                "local",
                "seven.example",
                "seven@example.com",
                "staging",
            ];
            let changed = values.into_iter().find_map(|value| {
                let mut config = Config::default();
                setting.apply(&mut config, value).ok()?;
                (config != Config::default()).then_some(config)
            });
            let later = at_the_next_start(&Config::default(), &changed.expect(setting.name));
            assert_eq!(later, if setting.live { vec![] } else { vec![setting.name] }, "{}", setting.name);
        }
    }

    #[test]
    fn a_reload_replaces_apps_and_limits_or_changes_nothing() {
        let before = Config { apps: vec![app("1:a:x")], ..Config::default() };
        let live = Reload::start(&before).expect("one app");
        let mut after = Config { apps: vec![app("1:b:x"), app("2:c:x")], ..Config::default() };
        after.limits.batch = 3;
        assert_eq!(live.reload(&after).expect("two apps"), Vec::<&str>::new());
        assert!(live.apps().by_key("a").is_none() && live.apps().by_key("c").is_some());
        assert_eq!(live.apps().by_key("b").expect("b").snapshot().limits.batch, 3);
        live.reload(&Config { apps: vec![app("1:a:x"), app("2:a:x")], ..Config::default() })
            .expect_err("one key for two");
        assert!(live.apps().by_key("b").is_some());
    }

    fn with_webhook(app: AppConfig, url: &str) -> AppConfig {
        AppConfig { webhooks: vec![Webhook::new(url)], ..app }
    }

    #[test]
    fn a_webhook_that_cannot_be_used_is_refused_whenever_it_comes() {
        let config = |url: &str| Config { apps: vec![with_webhook(app("1:a:x"), url)], ..Config::default() };
        let refused = Reload::start(&config("http://me:hunter2@a/")).expect_err("a password in it").to_string();
        assert!(refused.starts_with("app \"1\": the webhook's address may hold no name and no password"), "{refused}");
        let live = Reload::start(&config("http://a/")).expect("a good one");
        let again = live.reload(&config("http://me:hunter2@a/")).expect_err("a password in it").to_string();
        assert_eq!(again, refused);
        assert_eq!(live.apps().by_id("1").expect("the app").snapshot().config.webhooks[0].url, "http://a/");
    }

    #[test]
    fn a_row_whose_webhooks_cannot_be_used_leaves_its_app_as_it_was() {
        let live = Reload::start(&Config { apps: vec![app("1:a:x")], ..Config::default() }).expect("one app");
        let url =
            || live.apps().by_id("2").expect("the app").snapshot().config.webhooks.first().map(|one| one.url.clone());
        let row = |text: &str, lacks_webhooks| {
            let mut draft = crate::config::PartialApp::new(app(text), 0);
            draft.lacks_webhooks = lacks_webhooks;
            AppsSnapshot { apps: vec![draft], ..AppsSnapshot::default() }
        };
        assert!(live.take(row("2:b:x", true)), "there is none yet that could stay");
        let mut good = row("2:b:x", false);
        good.apps[0].app = with_webhook(app("2:b:x"), "http://a/");
        assert!(live.take(good));
        assert!(!live.take(row("2:c:x", true)));
        assert_eq!(url().as_deref(), Some("http://a/"));
        assert!(live.apps().by_key("b").is_some() && live.apps().by_key("c").is_none());
        assert!(live.state().complaint.contains("app \"2\": it is served as it was"));
        assert!(live.take(row("2:c:x", false)));
        assert!(url().is_none() && live.apps().by_key("c").is_some());
    }

    #[test]
    fn the_development_app_makes_way_for_others_and_never_takes_their_place() {
        let live = Reload::start(&Config::default()).expect("the development app");
        live.reload(&Config { shards: 3, ..Config::default() }).expect("the same");
        assert!(live.apps().development_app().is_some());
        live.reload(&Config { apps: vec![app("1:a:x")], ..Config::default() }).expect("one app");
        assert!(live.apps().development_app().is_none() && live.apps().by_key("app-key").is_none());
        let refused = live.reload(&Config::default()).expect_err("no app").to_string();
        assert!(refused.starts_with("no app is left in the configuration"), "{refused}");
        assert!(live.apps().by_key("a").is_some() && live.apps().by_key("app-key").is_none());
    }

    #[test]
    fn a_row_with_a_mistake_leaves_its_app_as_it_was() {
        let live = Reload::start(&Config { apps: vec![app("1:a:x")], ..Config::default() }).expect("one app");
        let stored = |text: &str| AppsSnapshot {
            apps: vec![crate::config::PartialApp::new(app(text), 0)],
            ..AppsSnapshot::default()
        };
        assert!(live.take(stored("2:b:x")));
        assert!(!live.take(stored("2:b:x")));
        assert!(live.apps().by_key("a").is_some() && live.apps().by_key("b").is_some());
        assert!(!live.take(AppsSnapshot { broken: vec!["2".to_owned()], ..AppsSnapshot::default() }));
        assert!(live.apps().by_key("b").is_some());
        assert!(!live.take(stored("2:a:x")), "the key is another app's");
        assert!(live.apps().by_key("b").is_some());
        assert!(live.take(AppsSnapshot::default()));
        assert!(live.apps().by_key("a").is_some() && live.apps().by_key("b").is_none());
    }
}
