//! Owns turning one query into the packets that answer it, well or badly as the zone says.
//! Must not touch sockets.

use super::zone::{Behaviour, Zone, raw_name};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{CNAME, SOA};
use hickory_proto::rr::{Name, RData, Record};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

#[derive(Default)]
pub struct Replies {
    pub packets: Vec<Vec<u8>>,
    pub delay: Duration,
}

impl Replies {
    fn one(message: &Message) -> Replies {
        Replies { packets: vec![encode(message)], delay: Duration::ZERO }
    }
}

pub fn to(query: &[u8], transport: Transport, zone: &mut Zone) -> Replies {
    let Ok(query) = Message::from_vec(query) else {
        return Replies::default();
    };
    let Some(asked) = query.queries.first().cloned() else {
        return Replies::default();
    };
    zone.count(&asked.name);
    let code = |code| Replies::one(&with_code(&query, &asked, code));
    match zone.behaviour_for(&asked.name, asked.query_type) {
        Behaviour::Answer => answer(&query, &asked, transport, zone),
        Behaviour::NxDomain => code(ResponseCode::NXDomain),
        Behaviour::NoData => code(ResponseCode::NoError),
        Behaviour::ServFail => code(ResponseCode::ServFail),
        Behaviour::Refused => code(ResponseCode::Refused),
        Behaviour::Silent => Replies::default(),
        Behaviour::TruncatedUdp if transport == Transport::Tcp => {
            answer(&query, &asked, transport, zone)
        }
        Behaviour::TruncatedUdp | Behaviour::Truncated => {
            let mut message = empty(&query, &asked);
            message.metadata.truncation = true;
            Replies::one(&message)
        }
        Behaviour::Malformed => {
            let mut packet = query.metadata.id.to_be_bytes().to_vec();
            // A response that claims a thousand answers, and a name that points at itself.
            packet.extend_from_slice(&[0x81, 0x80, 0, 1, 3, 0xe8, 0, 0, 0, 0, 0xc0, 0x0c, 0xff]);
            Replies { packets: vec![packet], delay: Duration::ZERO }
        }
        Behaviour::WrongId => {
            let mut replies = answer(&query, &asked, transport, zone);
            replies.packets.iter_mut().for_each(|packet| forge_id(packet));
            replies
        }
        Behaviour::ForgedFirst => {
            let mut replies = answer(&query, &asked, transport, zone);
            let mut forged =
                with_code(&query, &asked, ResponseCode::NXDomain).to_vec().unwrap_or_default();
            forge_id(&mut forged);
            replies.packets.insert(0, forged);
            replies
        }
        Behaviour::CnameLoop => {
            let other = raw_name("loop.example");
            let mut message = empty(&query, &asked);
            for (from, to) in [(&asked.name, &other), (&other, &asked.name)] {
                let data = RData::CNAME(CNAME(to.clone()));
                message.add_answer(Record::from_rdata(from.clone(), zone.ttl, data));
            }
            Replies::one(&message)
        }
        Behaviour::Delay(delay) => Replies { delay, ..answer(&query, &asked, transport, zone) },
    }
}

fn forge_id(packet: &mut [u8]) {
    if let Some(byte) = packet.first_mut() {
        *byte ^= 0x55;
    }
}

fn empty(query: &Message, asked: &Query) -> Message {
    let mut message = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.authoritative = true;
    message.add_query(asked.clone());
    message
}

/// A response without answers; the SOA record is what makes a negative one complete.
fn with_code(query: &Message, asked: &Query, code: ResponseCode) -> Message {
    let mut message = empty(query, asked);
    message.metadata.response_code = code;
    if matches!(code, ResponseCode::NXDomain | ResponseCode::NoError) {
        let soa = SOA::new(Name::root(), Name::root(), 1, 600, 600, 600, 600);
        message.add_authority(Record::from_rdata(Name::root(), 600, RData::SOA(soa)));
    }
    message
}

fn answer(query: &Message, asked: &Query, transport: Transport, zone: &Zone) -> Replies {
    let found = zone.answer(&asked.name, asked.query_type);
    if found.is_empty() {
        let exists = zone.exists(&asked.name);
        let code = if exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
        return Replies::one(&with_code(query, asked, code));
    }
    let mut message = empty(query, asked);
    for (name, data) in found {
        message.add_answer(Record::from_rdata(name, zone.ttl, data));
    }
    let packet = encode(&message);
    let limit = match transport {
        Transport::Udp => usize::from(query.max_payload()),
        // The zone sees to it that an answer fits.
        Transport::Tcp => usize::from(u16::MAX),
    };
    if packet.len() <= limit {
        return Replies { packets: vec![packet], delay: Duration::ZERO };
    }
    let mut truncated = empty(query, asked);
    truncated.metadata.truncation = true;
    Replies::one(&truncated)
}

fn encode(message: &Message) -> Vec<u8> {
    message.to_vec().expect("a DNS message can be encoded")
}
