//! Owns finding a name that leads to one address alone, as the resolver that Citus uses sees it.
//! Must not choose between servers: whether two addresses are one server is for `decide` to say.

use crate::net::dns::{Dns, Resolvers};
use decide::configuration::names::HostName;
use decide::configuration::policy::NameOrigin;
use decide::membership::endpoint::Naming;
use std::net::IpAddr;
use std::time::Duration;

/// The first of `origins` whose name leads to `address`, and to at most one address of each family.
/// `None` where there is none or DNS does not say in time: the address itself is always a name.
pub async fn find(
    address: IpAddr,
    origins: &[NameOrigin],
    resolvers: &Resolvers,
    deadline: Duration,
) -> Option<Naming> {
    tokio::time::timeout(deadline, async {
        let system = resolvers.system.as_ref().ok()?;
        for origin in origins {
            let name = match origin {
                NameOrigin::Given(name) => name.clone(),
                NameOrigin::Pointer => match resolvers.of_sources().ok()?.pointer(address).await {
                    Some(name) => name,
                    None => continue,
                },
            };
            if let Some(naming) = confirm(name, address, system).await {
                return Some(naming);
            }
        }
        None
    })
    .await
    .ok()?
}

async fn confirm(name: HostName, address: IpAddr, system: &Dns) -> Option<Naming> {
    let addresses = system.addresses(&name).await.ok()?;
    let of_family = |v4: bool| addresses.iter().filter(|found| found.is_ipv4() == v4).count();
    let leads_here = addresses.contains(&address) && of_family(true) <= 1 && of_family(false) <= 1;
    leads_here.then_some(Naming { name, addresses })
}
