//! How Redis is set up, as far as a cluster can lose something by it.

use std::collections::HashMap;
use std::fmt;

use ::redis::{Cmd, FromRedisValue, Value, cmd, from_redis_value};

/// A setting of Redis that operators should know of. It keeps no node from joining.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hazard {
    /// Redis deletes keys once its memory is full, by this policy.
    Evicts { policy: String },
    /// The master of sentinels accepts writes that no replica has.
    AcceptsAlone,
    /// Redis disconnects a node for which so many bytes wait, which are fewer than by default.
    SmallBuffer { bytes: u64 },
}

impl Hazard {
    /// Whether both are about the same setting.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl fmt::Display for Hazard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evicts { policy } => write!(
                formatter,
                "Redis deletes keys of the cluster when its memory is full (maxmemory-policy is {policy}): lists of members and counts become \
                 wrong, and cached events are lost; set maxmemory-policy to noeviction"
            ),
            Self::AcceptsAlone => formatter.write_str(
                "a failover can lose events that were answered with 200: a master that is cut off from its replicas and sentinels still accepts \
                 them (min-replicas-to-write is 0); set min-replicas-to-write to 1 and min-replicas-max-lag to a few seconds on all servers",
            ),
            Self::SmallBuffer { bytes } => write!(
                formatter,
                "Redis disconnects a node for which more than {bytes} bytes wait (client-output-buffer-limit pubsub), and its clients with it; \
                 set client-output-buffer-limit to \"pubsub 256mb 64mb 60\""
            ),
        }
    }
}

/// Asks about the memory. Everybody may, other than for `CONFIG`.
pub(super) fn ask_memory() -> Cmd {
    let mut info = cmd("INFO");
    info.arg("memory");
    info
}

/// Asks for the settings that `INFO` does not show. Redis as a service often refuses it.
pub(super) fn ask_settings() -> Cmd {
    let mut get = cmd("CONFIG");
    get.arg("GET").arg(REPLICAS).arg(BUFFERS);
    get
}

/// What an answer to [`ask_memory`] tells, if it is understood. Without a limit to the memory nothing is evicted.
pub(super) fn of_memory(answer: Value) -> Option<Hazard> {
    let text: String = read(answer)?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let policy = field("maxmemory_policy").filter(|policy| *policy != "noeviction")?;
    (field("maxmemory") != Some("0")).then(|| Hazard::Evicts { policy: policy.to_owned() })
}

/// What an answer to [`ask_settings`] tells, if it is understood.
pub(super) fn of_settings(answer: Value, has_sentinels: bool) -> Vec<Hazard> {
    let settings: HashMap<String, String> = read(answer).unwrap_or_default();
    let is_alone = has_sentinels && settings.get(REPLICAS).is_some_and(|replicas| replicas == "0");
    let small = settings.get(BUFFERS).and_then(|limits| small_buffer(limits));
    is_alone.then_some(Hazard::AcceptsAlone).into_iter().chain(small).collect()
}

/// From `CLASS HARD SOFT SECONDS` for each class of clients.
fn small_buffer(limits: &str) -> Option<Hazard> {
    let mut words = limits.split_ascii_whitespace().skip_while(|word| *word != "pubsub").skip(1);
    let mut limit = || words.next()?.parse::<u64>().ok();
    let (hard, soft) = (limit()?, limit()?);
    // Zero is no limit.
    let is_small = |limit: u64, default: u64| limit != 0 && limit < default;
    let small =
        [(hard, DEFAULT_HARD), (soft, DEFAULT_SOFT)].into_iter().filter(|(limit, default)| is_small(*limit, *default));
    small.map(|(bytes, _)| bytes).min().map(|bytes| Hazard::SmallBuffer { bytes })
}

fn read<T: FromRedisValue>(answer: Value) -> Option<T> {
    from_redis_value(answer).ok()
}

const REPLICAS: &str = "min-replicas-to-write";

const BUFFERS: &str = "client-output-buffer-limit";

/// By default Redis disconnects a subscriber for which so many bytes wait.
const DEFAULT_HARD: u64 = 32 << 20;

/// By default Redis disconnects a subscriber for which so many bytes wait for a minute.
const DEFAULT_SOFT: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn info(text: &str) -> Value {
        Value::VerbatimString { format: ::redis::VerbatimFormat::Text, text: text.to_owned() }
    }

    fn map(settings: &[(&str, &str)]) -> Value {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        Value::Map(settings.iter().map(|(name, value)| (text(name), text(value))).collect())
    }

    fn refused() -> Value {
        ::redis::parse_redis_value(b"-NOPERM this user has no permissions to run the 'config|get' command\r\n")
            .expect("an error that Redis sends")
    }

    #[test]
    fn what_evicts_is_a_hazard_where_memory_is_limited() {
        let evicts = Some(Hazard::Evicts { policy: "volatile-lru".to_owned() });
        assert_eq!(of_memory(info("maxmemory:1048576\r\nmaxmemory_policy:volatile-lru\r\n")), evicts);
        assert_eq!(of_memory(info("# Memory\r\nmaxmemory_policy:volatile-lru\r\n")), evicts, "the limit is not told");
        assert_eq!(of_memory(info("maxmemory:0\r\nmaxmemory_policy:volatile-lru\r\n")), None);
        assert_eq!(of_memory(info("maxmemory:1048576\r\nmaxmemory_policy:noeviction\r\n")), None);
        assert_eq!(of_memory(info("used_memory:1\r\n")), None);
    }

    #[test]
    fn a_master_that_accepts_writes_alone_is_a_hazard_where_sentinels_replace_it() {
        let (alone, with) = (map(&[(REPLICAS, "0")]), map(&[(REPLICAS, "1")]));
        assert_eq!(of_settings(alone.clone(), true), [Hazard::AcceptsAlone]);
        assert_eq!(of_settings(alone, false), []);
        assert_eq!(of_settings(with, true), []);
    }

    #[test]
    fn a_smaller_buffer_than_by_default_is_a_hazard() {
        let limits = |pubsub: &str| {
            of_settings(map(&[(BUFFERS, &format!("normal 0 0 0 slave 268435456 67108864 60 {pubsub}"))]), true)
        };
        let small = |bytes| vec![Hazard::SmallBuffer { bytes }];
        assert_eq!(limits("pubsub 33554432 8388608 60"), []);
        assert_eq!(limits("pubsub 0 0 0"), []);
        assert_eq!(limits("pubsub 33554431 8388608 60"), small(33_554_431));
        assert_eq!(limits("pubsub 33554432 8388607 60"), small(8_388_607));
        assert_eq!(limits("pubsub 2097152 1048576 60"), small(1_048_576));
        assert_eq!(limits("pubsub 0 many 60"), []);
        assert_eq!(limits("pubsub"), []);
    }

    #[test]
    fn a_redis_that_does_not_tell_is_not_complained_about() {
        assert_eq!((of_memory(refused()), of_settings(refused(), true)), (None, vec![]));
        assert_eq!((of_memory(Value::Nil), of_settings(map(&[]), true)), (None, vec![]));
    }

    #[test]
    fn a_hazard_says_what_to_set() {
        for (hazard, setting) in [
            (Hazard::Evicts { policy: "allkeys-lru".to_owned() }, "noeviction"),
            (Hazard::AcceptsAlone, "min-replicas-to-write to 1"),
            (Hazard::SmallBuffer { bytes: 1 }, "pubsub 256mb 64mb 60"),
        ] {
            assert!(hazard.to_string().contains(setting), "{hazard}");
        }
        let evicts = |policy: &str| Hazard::Evicts { policy: policy.to_owned() };
        assert!(evicts("a").is_like(&evicts("b")) && !evicts("a").is_like(&Hazard::AcceptsAlone));
    }
}
