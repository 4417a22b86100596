//! One password for everybody: read from a file, compared in constant time, and wrong ones slowed down.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use data_bridge_kv::sync::real::Mutex;
use subtle::ConstantTimeEq;

use crate::config::{ConfigError, PasswordSource};

/// How long the answer to a wrong password is held back.
pub const FAILURE_DELAY: Duration = Duration::from_millis(200);
/// Wrong passwords from one address within [`WINDOW`] before its connections are closed at once.
const FAILURES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Most addresses that are remembered: an attacker with many of them must not fill memory.
const ADDRESSES: usize = 4096;
/// Longest password in bytes; shorter ones are padded for comparison, so time tells nothing of the length.
const PASSWORD_BYTES: usize = 512;

/// Outcome of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The password is right.
    Welcome,
    /// It is wrong: answer after [`FAILURE_DELAY`].
    Wrong,
    /// Too many wrong ones from this address: close.
    TooMany,
}

/// The password and who failed to give it.
pub struct Gate {
    password: Option<Box<[u8; PASSWORD_BYTES]>>,
    failures: Mutex<HashMap<IpAddr, (u32, Instant)>>,
}

impl Gate {
    /// Reads the password.
    pub fn open(source: &PasswordSource) -> Result<Gate, ConfigError> {
        let password = match source {
            PasswordSource::None => None,
            PasswordSource::Environment(password) => Some(password.clone()),
            PasswordSource::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    ConfigError(format!("can't read the password file {}: {error}", path.display()))
                })?;
                Some(text.lines().next().unwrap_or_default().to_owned())
            }
        };
        let padded = password.map(|password| match pad(password.as_bytes()) {
            Some(padded) if !password.is_empty() => Ok(padded),
            _ => Err(ConfigError(format!("the password must have 1 to {PASSWORD_BYTES} bytes"))),
        });
        Ok(Gate { password: padded.transpose()?, failures: Mutex::new(HashMap::new()) })
    }

    /// Whether clients have to authenticate.
    pub fn is_closed(&self) -> bool {
        self.password.is_some()
    }

    /// Checks a password. The only user is `default`.
    pub fn check(&self, user: Option<&[u8]>, password: &[u8], address: IpAddr) -> Verdict {
        let Some(expected) = &self.password else { return Verdict::Welcome };
        let given = pad(password);
        let right = given.as_deref().unwrap_or(&[0; PASSWORD_BYTES]).as_slice().ct_eq(expected.as_slice());
        let known = user.is_none_or(|user| user == b"default");
        if bool::from(right) && given.is_some() && known {
            self.failures.lock().remove(&address);
            return Verdict::Welcome;
        }
        if self.note_failure(address, Instant::now()) > FAILURES { Verdict::TooMany } else { Verdict::Wrong }
    }

    /// Counts a failure; answers how many there were within the window.
    fn note_failure(&self, address: IpAddr, now: Instant) -> u32 {
        let mut failures = self.failures.lock();
        failures.retain(|_, (_, since)| now.duration_since(*since) < WINDOW);
        if failures.len() >= ADDRESSES && !failures.contains_key(&address) {
            return u32::MAX;
        }
        let (count, _) = failures.entry(address).or_insert((0, now));
        *count = count.saturating_add(1);
        *count
    }
}

fn pad(password: &[u8]) -> Option<Box<[u8; PASSWORD_BYTES]>> {
    let mut padded = Box::new([0; PASSWORD_BYTES]);
    padded.get_mut(..password.len())?.copy_from_slice(password);
    Some(padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn only_the_password_opens() {
        let gate = Gate::open(&PasswordSource::Environment("hush".to_owned())).unwrap();
        assert!(gate.is_closed());
        assert_eq!(gate.check(None, b"hush", HOME), Verdict::Welcome);
        assert_eq!(gate.check(Some(b"default"), b"hush", HOME), Verdict::Welcome);
        for (user, password) in
            [(None, &b"hus"[..]), (None, b""), (Some(&b"root"[..]), b"hush"), (None, &[0; 600])]
        {
            assert_eq!(gate.check(user, password, HOME), Verdict::Wrong);
        }
        assert!(Gate::open(&PasswordSource::Environment(String::new())).is_err());
        assert!(Gate::open(&PasswordSource::File("/no/such/file".into())).is_err());
        assert!(!Gate::open(&PasswordSource::None).unwrap().is_closed());
    }

    #[test]
    fn an_address_that_keeps_failing_is_turned_away() {
        let gate = Gate::open(&PasswordSource::Environment("hush".to_owned())).unwrap();
        for _ in 0..FAILURES {
            assert_eq!(gate.check(None, b"x", HOME), Verdict::Wrong);
        }
        assert_eq!(gate.check(None, b"x", HOME), Verdict::TooMany);
        let other = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(gate.check(None, b"x", other), Verdict::Wrong);
        let later = Instant::now() + WINDOW * 2;
        assert_eq!(gate.note_failure(HOME, later), 1);
    }
}
