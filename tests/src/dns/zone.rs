//! Owns the records and manners that a test has scripted, and the count of what was asked.
//! Must not know the wire format beyond names and record data.

use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SRV};
use hickory_proto::rr::{Name, RData, RecordType};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

/// How a query is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Behaviour {
    /// From the records: unknown names are NXDOMAIN, unknown types NODATA.
    #[default]
    Answer,
    NxDomain,
    NoData,
    ServFail,
    Refused,
    /// Not at all.
    Silent,
    /// Truncated over UDP, complete over TCP.
    TruncatedUdp,
    /// Truncated over both, with no record in either.
    Truncated,
    /// With bytes that are no DNS message, after an id that matches.
    Malformed,
    /// With an id that was not asked, and nothing else.
    WrongId,
    /// With a forged answer of another id first, and the right one after it.
    ForgedFirst,
    /// With two aliases that point at each other.
    CnameLoop,
    /// Correctly, but late.
    Delay(Duration),
}

/// As many A records as surely fit the 65,535 bytes of a message; for more, use several names.
pub const MOST: usize = 3000;

#[derive(Default)]
pub struct Zone {
    records: HashMap<(String, RecordType), Vec<RData>>,
    names: HashSet<String>,
    behaviours: HashMap<(String, Option<RecordType>), Behaviour>,
    counts: HashMap<String, u64>,
    pub behaviour: Behaviour,
    pub ttl: u32,
}

/// The form that names are compared in.
fn key(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

fn key_of(name: &str) -> String {
    key(&raw_name(name))
}

/// A name whose labels are taken as they are, so that hostile ones can be served.
pub fn raw_name(text: &str) -> Name {
    let mut name = Name::from_labels(text.trim_end_matches('.').split('.').map(str::as_bytes))
        .unwrap_or_else(|error| panic!("{text:?} is no name: {error}"));
    name.set_fqdn(true);
    name
}

impl Zone {
    fn put(&mut self, name: &str, kind: RecordType, data: Vec<RData>) {
        let name = key_of(name);
        self.names.insert(name.clone());
        self.records.insert((name, kind), data);
    }

    pub fn set_addresses(&mut self, name: &str, addresses: &[IpAddr]) {
        assert!(
            addresses.len() <= MOST,
            "one DNS message does not hold {} records",
            addresses.len()
        );
        let (mut four, mut six) = (Vec::new(), Vec::new());
        for address in addresses {
            match address {
                IpAddr::V4(ip) => four.push(RData::A(A(*ip))),
                IpAddr::V6(ip) => six.push(RData::AAAA(AAAA(*ip))),
            }
        }
        self.put(name, RecordType::A, four);
        self.put(name, RecordType::AAAA, six);
    }

    pub fn set_services(&mut self, name: &str, targets: &[(u16, &str)]) {
        let records = targets
            .iter()
            .map(|(port, target)| {
                // "." is how a service says that it does not exist.
                let target = if *target == "." { Name::root() } else { raw_name(target) };
                RData::SRV(SRV::new(0, 0, *port, target))
            })
            .collect();
        self.put(name, RecordType::SRV, records);
    }

    pub fn set_pointers(&mut self, address: IpAddr, names: &[&str]) {
        let records = names.iter().map(|name| RData::PTR(PTR(raw_name(name)))).collect();
        self.put(&Name::from(address).to_ascii(), RecordType::PTR, records);
    }

    pub fn set_alias(&mut self, name: &str, target: &str) {
        self.put(name, RecordType::CNAME, vec![RData::CNAME(CNAME(raw_name(target)))]);
    }

    pub fn forget(&mut self, name: &str) {
        let name = key_of(name);
        self.names.remove(&name);
        self.records.retain(|(known, _), _| *known != name);
    }

    pub fn set_behaviour(&mut self, name: &str, kind: Option<RecordType>, behaviour: Behaviour) {
        self.behaviours.insert((key_of(name), kind), behaviour);
    }

    /// The manners for one type of a name, else for the name, else for all.
    pub fn behaviour_for(&self, name: &Name, kind: RecordType) -> Behaviour {
        let name = key(name);
        let scripted = |kind| self.behaviours.get(&(name.clone(), kind)).copied();
        scripted(Some(kind)).or_else(|| scripted(None)).unwrap_or(self.behaviour)
    }

    pub fn count(&mut self, name: &Name) {
        *self.counts.entry(key(name)).or_default() += 1;
    }

    pub fn queries(&self) -> u64 {
        self.counts.values().sum()
    }

    pub fn queries_for(&self, name: &str) -> u64 {
        self.counts.get(&key_of(name)).copied().unwrap_or(0)
    }

    pub fn exists(&self, name: &Name) -> bool {
        self.names.contains(&key(name))
    }

    /// The answer section: aliases on the way, then the records of the type that was asked.
    pub fn answer(&self, name: &Name, kind: RecordType) -> Vec<(Name, RData)> {
        let mut answer = Vec::new();
        let mut at = name.clone();
        for _ in 0..8 {
            let here = key(&at);
            if let Some(records) = self.records.get(&(here.clone(), kind)) {
                answer.extend(records.iter().map(|data| (at.clone(), data.clone())));
                break;
            }
            match self.records.get(&(here, RecordType::CNAME)).and_then(|found| found.first()) {
                Some(RData::CNAME(CNAME(target))) => {
                    answer.push((at, RData::CNAME(CNAME(target.clone()))));
                    at = target.clone();
                }
                _ => break,
            }
        }
        answer
    }
}
