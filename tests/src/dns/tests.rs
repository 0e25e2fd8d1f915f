//! Owns the tests of the scripted DNS server: each behaviour as a client sees it on the wire.
//! Must not go through a resolver, which would hide what was really sent.

use super::*;
use crate::run::Subnet;
use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use std::net::Ipv4Addr;

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 4711;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn raw_name_query(name: &str) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(zone::raw_name(name), RecordType::A));
    message
}

fn ask_udp(dns: &Dns, message: &Message) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket.send_to(&message.to_vec().unwrap(), dns.address()).unwrap();
    let mut buffer = vec![0; 65536];
    let (length, _) = socket.recv_from(&mut buffer).ok()?;
    buffer.truncate(length);
    Some(buffer)
}

fn ask_tcp(dns: &Dns, message: &Message) -> Message {
    let mut stream = TcpStream::connect(dns.address()).unwrap();
    let packet = message.to_vec().unwrap();
    stream.write_all(&(packet.len() as u16).to_be_bytes()).unwrap();
    stream.write_all(&packet).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply).unwrap();
    Message::from_vec(&reply).unwrap()
}

fn udp(dns: &Dns, name: &str, kind: RecordType) -> Message {
    Message::from_vec(&ask_udp(dns, &query(name, kind)).expect("an answer")).unwrap()
}

fn dns() -> Dns {
    Dns::start(Subnet::new().address())
}

#[test]
fn records_are_served_and_change_at_once() {
    let dns = dns();
    let (one, two): (IpAddr, IpAddr) = ("127.0.9.1".parse().unwrap(), "::1".parse().unwrap());
    dns.addresses("Worker", &[one, two]);
    let reply = udp(&dns, "worker.", RecordType::A);
    assert_eq!(reply.answers.len(), 1);
    assert_eq!(reply.answers[0].data.ip_addr(), Some(one));
    assert_eq!(reply.answers[0].ttl, 600);
    assert_eq!(udp(&dns, "worker.", RecordType::AAAA).answers[0].data.ip_addr(), Some(two));

    let nodata = udp(&dns, "worker.", RecordType::SRV);
    assert_eq!((nodata.metadata.response_code, nodata.answers.len()), (ResponseCode::NoError, 0));
    dns.forget("worker");
    assert_eq!(udp(&dns, "worker.", RecordType::A).metadata.response_code, ResponseCode::NXDomain);
    assert_eq!((dns.queries(), dns.queries_for("worker")), (4, 4));
}

#[test]
fn services_pointers_and_aliases_are_served() {
    let dns = dns();
    dns.services("_pg._tcp.x", &[(5433, "w1.x"), (5434, "bad,name='.x")]);
    let reply = udp(&dns, "_pg._tcp.x.", RecordType::SRV);
    let RData::SRV(first) = &reply.answers[0].data else { panic!("{reply:?}") };
    assert_eq!((first.port, first.target.to_ascii().as_str()), (5433, "w1.x."));
    assert_eq!(reply.answers.len(), 2);

    let odd = raw_name_query("bad,name='.x");
    assert!(ask_udp(&dns, &odd).is_some());
    assert_eq!(dns.queries_for("bad,name='.x"), 1);

    let address: IpAddr = "127.0.9.1".parse().unwrap();
    dns.pointers(address, &["w1.x"]);
    let reply = udp(&dns, "1.9.0.127.in-addr.arpa.", RecordType::PTR);
    assert!(matches!(&reply.answers[0].data, RData::PTR(name) if name.to_ascii() == "w1.x."));

    dns.alias("also", "w1.x");
    dns.addresses("w1.x", &[address]);
    let reply = udp(&dns, "also.", RecordType::A);
    assert_eq!(reply.answers.len(), 2);
    assert_eq!(reply.answers[1].data.ip_addr(), Some(address));
}

#[test]
fn bad_manners_are_as_scripted() {
    let dns = dns();
    dns.addresses("worker", &[Ipv4Addr::new(127, 0, 9, 1).into()]);
    for (behaviour, code) in [
        (Behaviour::NxDomain, ResponseCode::NXDomain),
        (Behaviour::NoData, ResponseCode::NoError),
        (Behaviour::ServFail, ResponseCode::ServFail),
        (Behaviour::Refused, ResponseCode::Refused),
    ] {
        dns.behave(behaviour);
        let reply = udp(&dns, "worker.", RecordType::A);
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (code, 0));
    }
    let raw = |behaviour| {
        dns.behave(behaviour);
        ask_udp(&dns, &query("worker.", RecordType::A))
    };
    assert_eq!(raw(Behaviour::Silent), None);
    assert!(Message::from_vec(&raw(Behaviour::Malformed).unwrap()).is_err());
    let id = |packet: Option<Vec<u8>>| Message::from_vec(&packet.unwrap()).unwrap().metadata.id;
    assert_ne!(id(raw(Behaviour::WrongId)), 4711);
    assert_ne!(id(raw(Behaviour::ForgedFirst)), 4711);
    let looping = Message::from_vec(&raw(Behaviour::CnameLoop).unwrap()).unwrap();
    assert_eq!(looping.answers.len(), 2);

    let asked = query("worker.", RecordType::A);
    for (behaviour, over_tcp) in [(Behaviour::TruncatedUdp, 1), (Behaviour::Truncated, 0)] {
        dns.behave(behaviour);
        assert!(udp(&dns, "worker.", RecordType::A).metadata.truncation);
        assert_eq!(ask_tcp(&dns, &asked).answers.len(), over_tcp);
    }

    dns.behave(Behaviour::ServFail);
    dns.behave_for_type("worker", "AAAA", Behaviour::Refused);
    dns.behave_for("worker", Behaviour::Delay(Duration::from_millis(50)));
    let started = std::time::Instant::now();
    assert_eq!(udp(&dns, "worker.", RecordType::A).answers.len(), 1);
    assert!(started.elapsed() >= Duration::from_millis(50));
    let other_type = udp(&dns, "worker.", RecordType::AAAA);
    assert_eq!(other_type.metadata.response_code, ResponseCode::Refused);
}

#[test]
fn as_many_records_as_a_message_holds_come_over_tcp() {
    let dns = dns();
    let many: Vec<IpAddr> =
        (0..MOST as u32).map(|n| Ipv4Addr::from(0x7f64_0000 + n).into()).collect();
    dns.addresses("many", &many);
    let mut asked = query("many.", RecordType::A);
    asked.set_edns(Edns::new().set_max_payload(1232).clone());
    let over_udp = Message::from_vec(&ask_udp(&dns, &asked).unwrap()).unwrap();
    assert!(over_udp.metadata.truncation);
    assert_eq!(ask_tcp(&dns, &asked).answers.len(), MOST);
}
