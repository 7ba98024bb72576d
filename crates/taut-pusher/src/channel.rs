//! Channel names: what is allowed, and what kind of channel a name means.

use std::fmt;

/// A channel name that has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel<'a> {
    name: &'a str,
    kind: Kind,
}

impl<'a> Channel<'a> {
    /// Checks a name of at most `longest` bytes, prefix included.
    pub fn parse(name: &'a str, longest: usize) -> Result<Self, InvalidChannel> {
        if name.is_empty() {
            return Err(InvalidChannel::Empty);
        }
        if name.len() > longest {
            return Err(InvalidChannel::TooLong { longest });
        }
        let kind = Kind::of(name);
        let allowed = match kind {
            // What follows is a user's id, which its application chooses freely.
            Kind::ServerToUser => name.len() > SERVER_TO_USER.len() && !name.chars().any(char::is_control),
            // Nobody but the server subscribes to it or publishes there.
            Kind::ServerToConnection => false,
            _ => name.bytes().all(is_name_byte),
        };
        if allowed { Ok(Self { name, kind }) } else { Err(InvalidChannel::Character) }
    }

    /// The channel of a user: what backends send to the user goes there.
    pub fn of_user(user_id: &str) -> String {
        format!("{SERVER_TO_USER}{user_id}")
    }

    /// The channel of one connection: what backends send to that connection goes there.
    pub fn of_connection(socket_id: &str) -> String {
        format!("{SERVER_TO_CONNECTION}{socket_id}")
    }

    /// Whether it is the channel of one connection.
    pub fn is_of_connection(name: &str) -> bool {
        name.starts_with(SERVER_TO_CONNECTION)
    }

    /// Whether only the server knows of it: nobody is told that it is there.
    pub fn is_hidden(name: &str) -> bool {
        Self::user_of(name).is_some() || Self::is_of_connection(name)
    }

    /// The user whose own channel this is, if it is one's.
    pub fn user_of(name: &str) -> Option<&str> {
        name.strip_prefix(SERVER_TO_USER)
    }

    /// The whole name, prefix included.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// What the prefix says.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Channel<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

/// What a channel's name says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Open to everybody who knows the app's key.
    Public,
    /// Public, and the last published event is kept for newcomers.
    Cache,
    /// Open to those whose backend signed for it.
    Private,
    /// Private, and the last published event is kept for newcomers.
    PrivateCache,
    /// Private, with a payload that only its members can read.
    PrivateEncrypted,
    /// Private and encrypted, and the last published event is kept for newcomers.
    PrivateEncryptedCache,
    /// Private, and its members see each other.
    Presence,
    /// Presence, and the last published event is kept for newcomers.
    PresenceCache,
    /// What a backend sends to one signed-in user.
    ServerToUser,
    /// What a backend sends to one connection.
    ServerToConnection,
}

impl Kind {
    /// Reads the kind off the beginning of a name.
    ///
    /// A prefix counts only at the very beginning and only with its dash: `privateer` and `my-private-x` are public.
    pub fn of(name: &str) -> Self {
        PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix)).map_or(Self::Public, |(_, kind)| *kind)
    }
}

impl Kind {
    /// Whether a backend has to sign for those who subscribe.
    pub fn needs_signature(self) -> bool {
        !matches!(self, Self::Public | Self::Cache | Self::ServerToUser | Self::ServerToConnection)
    }

    /// Whether its members see each other.
    pub fn is_presence(self) -> bool {
        matches!(self, Self::Presence | Self::PresenceCache)
    }

    /// Whether the last published event is kept for newcomers.
    pub fn is_cache(self) -> bool {
        matches!(self, Self::Cache | Self::PrivateCache | Self::PrivateEncryptedCache | Self::PresenceCache)
    }

    /// Whether only its members can read what is published.
    pub fn is_encrypted(self) -> bool {
        matches!(self, Self::PrivateEncrypted | Self::PrivateEncryptedCache)
    }

    /// Whether its members may be told how many they are: in presence channels they know already.
    pub fn is_counted(self) -> bool {
        !self.is_presence() && !matches!(self, Self::ServerToUser | Self::ServerToConnection)
    }

    /// Whether clients may send events to the other members.
    pub fn takes_client_events(self) -> bool {
        self.needs_signature() && !self.is_encrypted()
    }
}

/// Why a channel name is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidChannel {
    /// The name is empty.
    Empty,
    /// Longer than the limit, in bytes.
    TooLong {
        /// The limit.
        longest: usize,
    },
    /// A character outside the alphabet.
    Character,
}

impl fmt::Display for InvalidChannel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => formatter.write_str("The channel name is empty."),
            Self::TooLong { longest } => {
                write!(formatter, "The channel name is too long. Maximum allowed size is {longest}.")
            }
            Self::Character => formatter.write_str(
                "The channel name contains a character that is not allowed. Allowed are letters and digits of ASCII \
                 and _ - = @ , . ;",
            ),
        }
    }
}

impl std::error::Error for InvalidChannel {}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-=@,.;".contains(&byte)
}

/// The channel on which a backend speaks to one user; the user's id follows.
const SERVER_TO_USER: &str = "#server-to-user-";

/// The channel on which a backend speaks to one connection; the connection's socket id follows.
const SERVER_TO_CONNECTION: &str = "#server-to-connection-";

/// In the order in which they have to be tried: longer before shorter.
const PREFIXES: [(&str, Kind); 9] = [
    ("private-encrypted-cache-", Kind::PrivateEncryptedCache),
    ("private-encrypted-", Kind::PrivateEncrypted),
    ("private-cache-", Kind::PrivateCache),
    ("private-", Kind::Private),
    ("presence-cache-", Kind::PresenceCache),
    ("presence-", Kind::Presence),
    ("cache-", Kind::Cache),
    (SERVER_TO_USER, Kind::ServerToUser),
    (SERVER_TO_CONNECTION, Kind::ServerToConnection),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_prefix_names_its_kind() {
        for (name, kind) in [
            ("chat", Kind::Public),
            ("cache-chat", Kind::Cache),
            ("private-chat", Kind::Private),
            ("private-cache-chat", Kind::PrivateCache),
            ("private-encrypted-chat", Kind::PrivateEncrypted),
            ("private-encrypted-cache-chat", Kind::PrivateEncryptedCache),
            ("presence-chat", Kind::Presence),
            ("presence-cache-chat", Kind::PresenceCache),
            ("#server-to-user-12345", Kind::ServerToUser),
        ] {
            assert_eq!(Channel::parse(name, 200).map(|channel| channel.kind()), Ok(kind), "{name}");
        }
    }

    #[test]
    fn a_prefix_counts_only_at_the_beginning_and_with_its_dash() {
        for name in [
            "foo-private-x",
            "privateer",
            "private",
            "presence",
            "presenceful",
            "cached",
            "cache",
            "Private-x",
            "encrypted-x",
        ] {
            assert_eq!(Kind::of(name), Kind::Public, "{name}");
        }
        assert_eq!(Kind::of("private-my-cache-x"), Kind::Private);
        assert_eq!(Kind::of("presence-private-x"), Kind::Presence);
        assert_eq!(Kind::of("private-cached"), Kind::Private);
    }

    #[test]
    fn every_character_of_the_alphabet_is_accepted() {
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-=@,.;";
        assert_eq!(Channel::parse(alphabet, 200).map(|channel| channel.name()), Ok(alphabet));
    }

    #[test]
    fn every_other_ascii_character_is_refused() {
        let refused: Vec<char> = (0u8..128)
            .map(char::from)
            .filter(|character| Channel::parse(&format!("a{character}b"), 200) == Err(InvalidChannel::Character))
            .collect();
        assert_eq!(refused.len(), 128 - 69);
        for name in [
            "schön",
            "a b",
            "a/b",
            "a:b",
            "a\n",
            "#chat",
            "#",
            "a#b",
            "#server-to-user-",
            "#server-to-user-a\nb",
            "#server-to-connection-1.2",
        ] {
            assert_eq!(Channel::parse(name, 200), Err(InvalidChannel::Character), "{name:?}");
        }
    }

    #[test]
    fn the_limit_counts_the_whole_name() {
        let longest = format!("private-{}", "x".repeat(192));
        assert!(Channel::parse(&longest, 200).is_ok());
        assert_eq!(Channel::parse(&format!("{longest}x"), 200), Err(InvalidChannel::TooLong { longest: 200 }));
        assert_eq!(Channel::parse("", 200), Err(InvalidChannel::Empty));
    }

    #[test]
    fn the_refusals_say_what_is_allowed() {
        assert_eq!(
            InvalidChannel::TooLong { longest: 164 }.to_string(),
            "The channel name is too long. Maximum allowed size is 164."
        );
        assert!(InvalidChannel::Character.to_string().ends_with("_ - = @ , . ;"));
    }
}
