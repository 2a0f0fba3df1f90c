//! The directory's API.

use std::time::{Duration, SystemTime};

use posthorn_api::directory::v1 as wire;
use posthorn_api::routing::v1 as routing;
use posthorn_testkit::dns::Dns;
use sqlx::Connection as _;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::running::{Router, database};

/// The field that an INVALID_ARGUMENT names.
fn field(status: &Status) -> String {
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    status.get_details_bad_request().unwrap().field_violations.remove(0).field
}

fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> Code {
    result.expect_err("refused").code()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_lives_and_dies() {
    let mut router = Router::start(&database().await, &[]).await;
    let created = |name: &str, tenant_id: &str, separator: Option<&str>| wire::CreateDomainRequest {
        domain: Some(wire::Domain {
            name: name.into(),
            tenant_id: tenant_id.into(),
            subaddress_separator: separator.map(Into::into),
            ..Default::default()
        }),
    };
    let directory = &mut router.directory;
    let domain = directory.create_domain(created("Bücher.example", "", None)).await.unwrap().into_inner();
    let domain = domain.domain.unwrap();
    assert_eq!(domain.name, "xn--bcher-kva.example");
    assert_eq!((domain.tenant_id.as_str(), domain.subaddress_separator.as_deref()), ("default", Some("+")));
    assert!(domain.created_at.is_some());

    let again = directory.create_domain(created("bücher.example", "", None)).await;
    assert_eq!(code(again), Code::AlreadyExists);
    let elsewhere = directory.create_domain(created("a.example", "nobody", None)).await;
    assert_eq!(code(elsewhere), Code::FailedPrecondition);
    let wrong = directory.create_domain(created("a b", "", None)).await.unwrap_err();
    assert_eq!(field(&wrong), "domain.name");
    let wrong = directory.create_domain(created("a.example", "", Some("x"))).await.unwrap_err();
    assert_eq!(field(&wrong), "domain.subaddress_separator");
    let none = directory.create_domain(wire::CreateDomainRequest { domain: None }).await.unwrap_err();
    assert_eq!(field(&none), "domain");

    let changed = wire::Domain { catch_all: "x@example.net".into(), ..domain };
    let changed = wire::UpdateDomainRequest { domain: Some(changed) };
    let changed = directory.update_domain(changed).await.unwrap().into_inner().domain.unwrap();
    assert_eq!(changed.catch_all, "x@example.net");
    let got = directory.get_domain(wire::GetDomainRequest { name: "xn--bcher-kva.example".into() }).await;
    assert_eq!(got.unwrap().into_inner().domain.unwrap(), changed);

    router.account("alice@bücher.example").await;
    let delete = wire::DeleteDomainRequest { name: "bücher.example".into() };
    assert_eq!(code(router.directory.delete_domain(delete.clone()).await), Code::FailedPrecondition);
    let account = wire::DeleteAccountRequest { address: "alice@bücher.example".into() };
    router.directory.delete_account(account).await.unwrap();
    router.directory.delete_domain(delete.clone()).await.unwrap();
    assert_eq!(code(router.directory.delete_domain(delete).await), Code::NotFound);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_one_thing_only() {
    let mut router = Router::with_users(&Dns::start().await, &[]).await;
    router.alias("sales@example.test", &["alice@example.test"]).await;
    let alias = |address: &str, targets: &[&str]| wire::CreateAliasRequest {
        alias: Some(wire::Alias {
            address: address.into(),
            targets: targets.iter().map(|t| (*t).into()).collect(),
        }),
    };
    let account = |address: &str| wire::CreateAccountRequest {
        account: Some(wire::Account { address: address.into(), ..Default::default() }),
        password: String::new(),
    };
    let directory = &mut router.directory;
    assert_eq!(
        code(directory.create_alias(alias("Alice@example.test", &["x@y.example"])).await),
        Code::AlreadyExists
    );
    assert_eq!(code(directory.create_account(account("SALES@example.test")).await), Code::AlreadyExists);
    assert_eq!(code(directory.create_account(account("x@example.net")).await), Code::FailedPrecondition);
    let wrong = directory.create_account(account("x@[192.0.2.1]")).await.unwrap_err();
    assert_eq!(field(&wrong), "account.address");
    let wrong = directory.create_alias(alias("a@example.test", &["b@example.test", "no"])).await.unwrap_err();
    assert_eq!(field(&wrong), "alias.targets[1]");
    let wrong = directory.create_alias(alias("a@example.test", &[])).await.unwrap_err();
    assert_eq!(field(&wrong), "alias.targets");
    let delete = wire::DeleteAliasRequest { address: "alice@example.test".into() };
    assert_eq!(code(directory.delete_alias(delete).await), Code::NotFound, "it is an account");
    let delete = wire::DeleteAliasRequest { address: "sales@example.test".into() };
    directory.delete_alias(delete).await.unwrap();
    directory.create_account(account("sales@example.test")).await.unwrap();
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_changes_and_its_password_is_hashed() {
    let database = database().await;
    let mut router = Router::start(&database, &[]).await;
    router.domain("example.test").await;
    let account = wire::Account { address: "\"Alice B\"@example.test".into(), ..Default::default() };
    let request = wire::CreateAccountRequest { account: Some(account), password: "posthorn".into() };
    let created = router.directory.create_account(request).await.unwrap().into_inner().account.unwrap();
    assert_eq!(created.address, "\"alice b\"@example.test");

    let mut owner = sqlx::PgConnection::connect(&database).await.unwrap();
    let mut hash = async || -> Option<String> {
        let hash = sqlx::query_scalar("SELECT password_hash FROM directory.accounts");
        hash.fetch_one(&mut owner).await.unwrap()
    };
    let first = hash().await.unwrap();
    assert!(first.starts_with("$argon2id$"), "{first}");
    let mut update = async |password: Option<&str>, quota_bytes| {
        let account = wire::Account { quota_bytes, disabled: true, ..created.clone() };
        let request =
            wire::UpdateAccountRequest { account: Some(account), password: password.map(Into::into) };
        router.directory.update_account(request).await.unwrap().into_inner().account.unwrap()
    };
    let updated = update(None, 1 << 30).await;
    assert_eq!(
        (updated.quota_bytes, updated.disabled, &updated.account_id),
        (1 << 30, true, &created.account_id)
    );
    assert_eq!(hash().await, Some(first.clone()), "unchanged");
    update(Some("other"), 0).await;
    assert_ne!(hash().await, Some(first));
    update(Some(""), 0).await;
    assert_eq!(hash().await, None);

    let resolved = |mailbox| routing::ResolveMailboxRequest { mailbox: Some(mailbox) };
    use routing::resolve_mailbox_request::Mailbox;
    let by_address = resolved(Mailbox::Address("\"ALICE B\"@example.test".into()));
    let by_address = router.routing.resolve_mailbox(by_address).await.unwrap().into_inner();
    let by_id = resolved(Mailbox::AccountId(by_address.account_id.clone()));
    assert_eq!(router.routing.resolve_mailbox(by_id).await.unwrap().into_inner(), by_address);
    assert_eq!(by_address.address, created.address);
    let nobody = resolved(Mailbox::Address("nobody@example.test".into()));
    assert_eq!(code(router.routing.resolve_mailbox(nobody).await), Code::NotFound);

    let exist = |account_ids| routing::AccountsExistRequest { account_ids };
    let ids = vec![vec![7; 16].into(), by_address.account_id.clone(), vec![8; 16].into()];
    let answer = router.routing.accounts_exist(exist(ids)).await.unwrap().into_inner();
    assert_eq!(answer.exist, [false, true, false]);
    let broken = router.routing.accounts_exist(exist(vec![vec![7; 5].into()])).await;
    assert_eq!(code(broken), Code::InvalidArgument);
    let too_many = router.routing.accounts_exist(exist(vec![vec![7; 16].into(); 10_001])).await;
    assert_eq!(code(too_many), Code::InvalidArgument);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_on_where_they_ended() {
    let mut router = Router::start(&database().await, &[]).await;
    router.domain("a.test").await;
    router.domain("b.test").await;
    for n in 0..5 {
        router.account(&format!("u{n}@a.test")).await;
        router.account(&format!("u{n}@b.test")).await;
    }
    let mut list = async |domain: &str, page_size| {
        let (mut all, mut sizes, mut page_token) = (Vec::new(), Vec::new(), String::new());
        loop {
            let request = wire::ListAccountsRequest { domain: domain.into(), page_size, page_token };
            let page = router.directory.list_accounts(request).await.unwrap().into_inner();
            sizes.push(page.accounts.len());
            all.extend(page.accounts.into_iter().map(|account| account.address));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return (all, sizes);
            }
        }
    };
    let (all, sizes) = list("", 4).await;
    assert_eq!(sizes, [4, 4, 2]);
    assert!(
        all.is_sorted_by_key(|address| address.rsplit_once('@').map(|(l, d)| (d.to_owned(), l.to_owned())))
    );
    assert_eq!(all.len(), 10);
    assert_eq!(list("b.test", 5).await.1, [5], "a full last page has no next");
    assert_eq!(list("", 0).await.1, [10]);
    let request = wire::ListAccountsRequest { page_size: 1_001, ..Default::default() };
    assert_eq!(field(&router.directory.list_accounts(request).await.unwrap_err()), "page_size");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_has_members_and_a_limit() {
    let mut router = Router::with_users(&Dns::start().await, &[("router.expansion.targets", "3")]).await;
    let members = |members: &[&str]| members.iter().map(|m| (*m).to_owned()).collect::<Vec<_>>();
    let list = wire::DistributionList {
        address: "team@example.test".into(),
        members: members(&["alice@example.test", "bob@example.test", "alice@example.test"]),
        owner: "alice@example.test".into(),
    };
    let request = wire::CreateDistributionListRequest { list: Some(list) };
    router.directory.create_distribution_list(request).await.unwrap();
    let update = |add: &[&str], remove: &[&str], owner: Option<&str>| wire::UpdateDistributionListRequest {
        address: "team@example.test".into(),
        add_members: members(add),
        remove_members: members(remove),
        owner: owner.map(Into::into),
    };
    let change = update(&["x@example.net"], &["bob@example.test"], Some(""));
    let list = router.directory.update_distribution_list(change).await.unwrap().into_inner().list.unwrap();
    assert_eq!(list.members, ["alice@example.test", "x@example.net"]);
    assert_eq!(list.owner, "");
    let too_many = update(&["y@example.net", "z@example.net"], &[], None);
    assert_eq!(code(router.directory.update_distribution_list(too_many).await), Code::FailedPrecondition);
    let request = wire::GetDistributionListRequest { address: "TEAM@example.test".into() };
    let got = router.directory.get_distribution_list(request).await.unwrap().into_inner().list.unwrap();
    assert_eq!(got, list, "the refused change left no trace");
    let request = wire::ListDistributionListsRequest::default();
    let lists = router.directory.list_distribution_lists(request).await.unwrap().into_inner().lists;
    assert_eq!(lists, [wire::DistributionList { members: vec![], ..list }]);
    let delete = wire::DeleteDistributionListRequest { address: "team@example.test".into() };
    router.directory.delete_distribution_list(delete).await.unwrap();
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_known_by_their_secret_until_revoked() {
    let mut router = Router::start(&database().await, &[]).await;
    let key = |scopes: &[&str], expires_at: Option<SystemTime>| wire::CreateKeyRequest {
        key: Some(wire::Key {
            scopes: scopes.iter().map(|s| (*s).into()).collect(),
            description: "a test".into(),
            expires_at: expires_at.map(Into::into),
            ..Default::default()
        }),
    };
    let soon = SystemTime::now() + Duration::from_secs(5);
    let created = router.directory.create_key(key(&["submit"], Some(soon))).await.unwrap().into_inner();
    let verify = |key: &str| routing::VerifyKeyRequest { key: key.into() };
    let known = router.routing.verify_key(verify(&created.secret)).await.unwrap().into_inner();
    assert_eq!((known.tenant_id.as_str(), known.scopes.as_slice()), ("default", &["submit".to_owned()][..]));
    let kept = posthorn_api::period(known.cache_for.unwrap());
    assert!(kept <= Duration::from_secs(5), "{kept:?}: not beyond its end");
    assert_eq!(code(router.routing.verify_key(verify("phk_unknown")).await), Code::Unauthenticated);

    for (wrong, named) in [
        (key(&[], None), "key.scopes"),
        (key(&["everything"], None), "key.scopes"),
        (key(&["submit"], Some(SystemTime::UNIX_EPOCH)), "key.expires_at"),
    ] {
        assert_eq!(field(&router.directory.create_key(wrong).await.unwrap_err()), named);
    }
    let delete = wire::DeleteKeyRequest { key_id: known.key_id };
    router.directory.delete_key(delete).await.unwrap();
    assert_eq!(code(router.routing.verify_key(verify(&created.secret)).await), Code::Unauthenticated);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_and_routes_are_kept() {
    let mut router = Router::start(&database().await, &[]).await;
    let tenant = wire::Tenant { tenant_id: "acme".into(), display_name: "Acme".into() };
    let request = wire::CreateTenantRequest { tenant: Some(tenant.clone()) };
    router.directory.create_tenant(request).await.unwrap();
    let all = router.directory.list_tenants(wire::ListTenantsRequest::default()).await.unwrap().into_inner();
    assert_eq!(all.tenants[0], tenant);
    let delete = |id: &str| wire::DeleteTenantRequest { tenant_id: id.into() };
    assert_eq!(code(router.directory.delete_tenant(delete("default")).await), Code::FailedPrecondition);
    router.directory.delete_tenant(delete("acme")).await.unwrap();

    router.route("*", &[("smart.example", 25)]).await;
    router.route(".Example.net", &[("2001:db8::1", 0)]).await;
    let routes = router.directory.list_routes(wire::ListRoutesRequest::default()).await.unwrap().into_inner();
    let names: Vec<&str> = routes.routes.iter().map(|route| route.domain.as_str()).collect();
    assert_eq!(names, ["*", ".example.net"]);
    for (domain, hosts, named) in [
        ("a.example", vec![], "route.hosts"),
        ("a b", vec![wire::RouteHost { host: "b.example".into(), port: 0 }], "route.domain"),
        ("a.example", vec![wire::RouteHost { host: "b c".into(), port: 0 }], "route.hosts[0].host"),
        ("a.example", vec![wire::RouteHost { host: "b.example".into(), port: 65536 }], "route.hosts[0].port"),
    ] {
        let route = Some(wire::Route { domain: domain.into(), hosts });
        let refused = router.directory.create_route(wire::CreateRouteRequest { route }).await.unwrap_err();
        assert_eq!(field(&refused), named);
    }
    let delete = wire::DeleteRouteRequest { domain: "*".into() };
    router.directory.delete_route(delete).await.unwrap();
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_tells_the_way_and_the_hosts() {
    let dns = Dns::start().await;
    dns.mx("example.net", 10, "mx.example.net").a("mx.example.net", [192, 0, 2, 1].into());
    let mut router = Router::with_users(&dns, &[]).await;
    router.alias("sales@example.test", &["bob@example.test", "x@example.net"]).await;
    let request = wire::ExplainRequest { address: "sales@example.test".into(), sender: String::new() };
    let explained = router.directory.explain(request).await.unwrap().into_inner();
    assert_eq!(
        explained.steps,
        [
            "domain example.test: ours (tenant default)",
            "address sales@example.test: an alias of 2 targets",
            &format!("address bob@example.test: {}", explained.targets[0].detail),
            "domain example.net: not ours",
            "route for example.net: none",
            "DNS of example.net: mx.example.net",
            "alias sales@example.test -> account bob@example.test",
            "alias sales@example.test -> x@example.net (by DNS)",
        ]
    );
    let (local, remote) = (&explained.targets[0], &explained.targets[1]);
    assert_eq!((local.address.as_str(), local.decision.as_str()), ("bob@example.test", "local"));
    assert_eq!((remote.decision.as_str(), remote.detail.as_str()), ("remote", "mx.example.net"));
    assert_eq!(remote.hosts, ["mx.example.net:25 192.0.2.1"]);

    // A route whose host is nowhere: that is why the mail waits.
    router.route("example.net", &[("gone.example", 0)]).await;
    let request = wire::ExplainRequest { address: "x@example.net".into(), sender: String::new() };
    let explained = router.directory.explain(request).await.unwrap().into_inner();
    let remote = &explained.targets[0];
    let why =
        "route:gone.example: 451 4.4.4 None of the hosts of the route has an address: route:gone.example";
    assert_eq!((remote.decision.as_str(), remote.detail.as_str()), ("remote", why));
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_need_a_key_for_the_directory() {
    let database = database().await;
    let mut trusted = Router::start(&database, &[]).await;
    let mut secret = async |scope: &str, tenant_id: &str| {
        let key = wire::Key { scopes: vec![scope.into()], tenant_id: tenant_id.into(), ..Default::default() };
        let created = trusted.directory.create_key(wire::CreateKeyRequest { key: Some(key) }).await;
        created.map(|created| created.into_inner().secret)
    };
    let (manager, other) = (secret("directory", "").await.unwrap(), secret("submit", "").await.unwrap());
    let acme = wire::Tenant { tenant_id: "acme".into(), ..Default::default() };
    let mut router = Router::start(&database, &[("router.trusted_networks", "[]")]).await;
    let mut ask = async |authorization: Option<String>| {
        let mut request = tonic::Request::new(wire::CreateTenantRequest { tenant: Some(acme.clone()) });
        if let Some(value) = authorization {
            request.metadata_mut().insert("authorization", value.parse().unwrap());
        }
        router.directory.create_tenant(request).await.map(drop).map_err(|status| status.code())
    };
    assert_eq!(ask(None).await, Err(Code::Unauthenticated));
    assert_eq!(ask(Some("Basic abc".into())).await, Err(Code::Unauthenticated));
    assert_eq!(ask(Some("Bearer phk_unknown".into())).await, Err(Code::Unauthenticated));
    assert_eq!(ask(Some(format!("Bearer {other}"))).await, Err(Code::PermissionDenied));
    assert_eq!(ask(Some(format!("Bearer {manager}"))).await, Ok(()));
    let tenants = secret("directory", "acme").await.unwrap();
    assert_eq!(ask(Some(format!("Bearer {tenants}"))).await, Err(Code::PermissionDenied));
    router.stop().await;
    trusted.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_that_was_never_given_out_is_named() {
    let mut router = Router::start(&database().await, &[]).await;
    let directory = &mut router.directory;
    let (page_size, page_token) = (0, "a\0".to_owned());
    let tenants = wire::ListTenantsRequest { page_size, page_token: page_token.clone() };
    let domains = wire::ListDomainsRequest { page_size, page_token: page_token.clone() };
    let routes = wire::ListRoutesRequest { page_size, page_token: page_token.clone() };
    let keys = wire::ListKeysRequest { page_size, page_token };
    for refused in [
        directory.list_tenants(tenants).await.map(drop),
        directory.list_domains(domains).await.map(drop),
        directory.list_routes(routes).await.map(drop),
        directory.list_keys(keys).await.map(drop),
    ] {
        assert_eq!(field(&refused.unwrap_err()), "page_token");
    }
    router.stop().await;
}
