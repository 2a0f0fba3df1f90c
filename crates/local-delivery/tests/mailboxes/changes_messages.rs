//! Flags, copies, moves, removals: UIDs, mod-sequences, counters, and what a watcher is told.

use posthorn_api::mailbox::v1 as api;
use posthorn_api::mailbox::v1::watch_response::Change;
use tonic::Code;

use crate::world::{ALICE, World, selection};

/// Alice with messages 1 to n in her INBOX.
async fn alice_with(n: usize) -> World {
    let mut world = World::start().await;
    let alice = world.account(ALICE, 0);
    let mut items = Vec::new();
    for n in 1..=n {
        items.push(world.item(alice, &format!("Subject: {n}\r\n\r\n")).await);
    }
    world.queue.work(items).await;
    world
}

async fn uids(world: &mut World, folder: &str) -> Vec<u32> {
    world.list(ALICE, folder).await.iter().map(|message| message.uid).collect()
}

/// All that has changed since, as text.
async fn changes(world: &mut World, after: u64, count: usize) -> Vec<String> {
    let request =
        api::WatchRequest { mailbox: ALICE.into(), folder: String::new(), after_modseq: Some(after) };
    let mut stream = world.mailbox.watch(request).await.unwrap().into_inner();
    stream.message().await.unwrap();
    let mut changes = Vec::new();
    for _ in 0..count {
        let change = stream.message().await.unwrap().unwrap();
        let text = match change.change.unwrap() {
            Change::Message(m) => format!("{}/{} {}", m.folder, m.uid, m.flags.join(" ")),
            Change::Expunged(e) => format!("{}/{} gone", e.folder, e.uid),
            Change::Started(_) => panic!("started twice"),
        };
        changes.push(format!("{}: {}", change.modseq, text.trim_end()));
    }
    changes
}

fn set(uids: &[u32], add: &[&str], remove: &[&str], unchanged_since: u64) -> api::SetFlagsRequest {
    let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    api::SetFlagsRequest {
        mailbox: ALICE.into(),
        selection: selection("", uids),
        add: texts(add),
        remove: texts(remove),
        unchanged_since,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_are_set_where_nobody_else_has_changed_them() {
    let mut world = alice_with(3).await;
    let all =
        world.mailbox.set_flags(set(&[1, 2, 9], &["\\Seen", "$Work"], &[], 0)).await.unwrap().into_inner();
    assert_eq!(all.messages.iter().map(|m| (m.uid, m.modseq)).collect::<Vec<_>>(), [(1, 4), (2, 5)]);
    assert_eq!(all.messages[0].flags, ["\\Seen", "$Work"]);
    // The same again changes nothing.
    let again = world.mailbox.set_flags(set(&[1], &["\\Seen"], &[], 0)).await.unwrap().into_inner();
    assert_eq!(again.messages[0].modseq, 4);
    // Message 2 has changed since 4.
    let some = set(&[1, 2, 3], &["\\Flagged"], &["$Work"], 4);
    let some = world.mailbox.set_flags(some).await.unwrap().into_inner();
    assert_eq!(some.modified_uids, [2]);
    assert_eq!(
        some.messages.iter().map(|m| (m.uid, m.flags.join(" "))).collect::<Vec<_>>(),
        [(1, "\\Seen \\Flagged".to_owned()), (3, "\\Flagged".to_owned())]
    );
    let inbox = world.folders(ALICE).await["INBOX"].clone();
    assert_eq!((inbox.messages, inbox.unseen, inbox.highest_modseq), (3, 1, 7));
    assert_eq!(
        changes(&mut world, 3, 3).await,
        ["5: INBOX/2 \\Seen $Work", "6: INBOX/1 \\Seen \\Flagged", "7: INBOX/3 \\Flagged"]
    );

    let refused = world.mailbox.set_flags(set(&[9], &["\\Seen"], &[], 0)).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    for wrong in [set(&[], &[], &[], 0), set(&[0], &[], &[], 0), set(&[1], &["\\Recent"], &[], 0)] {
        assert_eq!(world.mailbox.set_flags(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_shares_the_content_and_counts() {
    let mut world = alice_with(3).await;
    world.mailbox.set_flags(set(&[2], &["\\Seen"], &[], 0)).await.unwrap();
    let copy = |to: &str| api::CopyMessagesRequest {
        mailbox: ALICE.into(),
        selection: selection("INBOX", &[3, 2]),
        to_folder: to.into(),
    };
    let copied = world.mailbox.copy_messages(copy("Archive")).await.unwrap().into_inner().messages;
    assert_eq!(copied.iter().map(|m| (m.from_uid, m.to_uid)).collect::<Vec<_>>(), [(2, 1), (3, 2)]);
    // Also into the folder itself.
    let copied = world.mailbox.copy_messages(copy("INBOX")).await.unwrap().into_inner().messages;
    assert_eq!(copied.iter().map(|m| (m.from_uid, m.to_uid)).collect::<Vec<_>>(), [(2, 4), (3, 5)]);
    let folders = world.folders(ALICE).await;
    assert_eq!(
        (folders["Archive"].messages, folders["Archive"].unseen, folders["Archive"].uid_next),
        (2, 1, 3)
    );
    assert_eq!((folders["INBOX"].messages, folders["INBOX"].unseen, folders["INBOX"].uid_next), (5, 3, 6));
    let listed = world.list(ALICE, "Archive").await;
    assert_eq!((listed[0].subject.as_str(), listed[0].flags.join(" ").as_str()), ("2", "\\Seen"));
    assert_eq!(world.count("SELECT count(DISTINCT content_id) FROM mailbox.message").await, 3);
    assert_eq!(world.mailbox.copy_messages(copy("Nowhere")).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_gives_new_uids_and_tells_of_the_old() {
    let mut world = alice_with(3).await;
    let request = api::MoveMessagesRequest {
        mailbox: ALICE.into(),
        selection: selection("", &[1, 3]),
        to_folder: "Archive".into(),
    };
    let moved = world.mailbox.move_messages(request.clone()).await.unwrap().into_inner().messages;
    assert_eq!(moved.iter().map(|m| (m.from_uid, m.to_uid)).collect::<Vec<_>>(), [(1, 1), (3, 2)]);
    assert_eq!((uids(&mut world, "INBOX").await, uids(&mut world, "Archive").await), (vec![2], vec![1, 2]));
    let told = ["4: Archive/1", "5: Archive/2", "6: INBOX/1 gone", "7: INBOX/3 gone"];
    assert_eq!(changes(&mut world, 3, 4).await, told);
    assert_eq!(world.mailbox.move_messages(request).await.unwrap_err().code(), Code::NotFound);
    let folders = world.folders(ALICE).await;
    assert_eq!((folders["INBOX"].messages, folders["INBOX"].uid_next), (1, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_goes_to_trash_and_from_there_for_good() {
    let mut world = alice_with(2).await;
    let delete = |folder: &str, uid| api::DeleteMessagesRequest {
        mailbox: ALICE.into(),
        selection: selection(folder, &[uid]),
    };
    assert_eq!(world.mailbox.delete_messages(delete("", 1)).await.unwrap().into_inner().deleted, 1);
    assert_eq!(uids(&mut world, "Trash").await, [1]);
    assert_eq!(world.mailbox.delete_messages(delete("Trash", 1)).await.unwrap().into_inner().deleted, 1);
    assert!(uids(&mut world, "Trash").await.is_empty());
    // Without a Trash there is nowhere to go.
    let folder = api::DeleteFolderRequest { mailbox: ALICE.into(), folder: "Trash".into() };
    world.mailbox.delete_folder(folder).await.unwrap();
    world.mailbox.delete_messages(delete("", 2)).await.unwrap();
    assert_eq!(world.count("SELECT count(*) FROM mailbox.message").await, 0);
    assert_eq!(world.count("SELECT used_bytes + messages FROM mailbox.account").await, 0);
    assert_eq!(world.count("SELECT count(*) FROM content.released").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn expunging_takes_those_named_or_those_flagged() {
    let mut world = alice_with(4).await;
    world.mailbox.set_flags(set(&[1, 3], &["\\Deleted"], &[], 0)).await.unwrap();
    let expunge = |uids: &[u32]| api::ExpungeMessagesRequest {
        mailbox: ALICE.into(),
        folder: String::new(),
        uids: uids.to_vec(),
    };
    assert_eq!(world.mailbox.expunge_messages(expunge(&[4])).await.unwrap().into_inner().uids, [4]);
    assert_eq!(world.mailbox.expunge_messages(expunge(&[])).await.unwrap().into_inner().uids, [1, 3]);
    assert_eq!(world.mailbox.expunge_messages(expunge(&[])).await.unwrap().into_inner().uids, [0_u32; 0]);
    assert_eq!(world.mailbox.expunge_messages(expunge(&[4])).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(uids(&mut world, "INBOX").await, [2]);
    let told = ["7: INBOX/4 gone", "8: INBOX/1 gone", "9: INBOX/3 gone"];
    assert_eq!(changes(&mut world, 6, 3).await, told);
    let inbox = world.folders(ALICE).await["INBOX"].clone();
    assert_eq!((inbox.messages, inbox.uid_next, inbox.highest_modseq), (1, 5, 9));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_over_all_folders() {
    let mut world = alice_with(25).await;
    let request = api::CopyMessagesRequest {
        mailbox: ALICE.into(),
        selection: selection("", &(1..=25).collect::<Vec<_>>()),
        to_folder: "Sent".into(),
    };
    world.mailbox.copy_messages(request).await.unwrap();
    let mut seen = Vec::new();
    let mut page_token = String::new();
    let mut pages = 0;
    loop {
        let request = api::ListMessagesRequest {
            mailbox: ALICE.into(),
            page_size: 10,
            page_token,
            brief: pages % 2 == 1,
            ..Default::default()
        };
        let page = world.mailbox.list_messages(request).await.unwrap().into_inner();
        pages += 1;
        seen.extend(page.messages.iter().map(|m| (m.folder.clone(), m.uid)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let all = |folder: &'static str| (1..=25).map(move |uid| (folder.to_owned(), uid));
    assert_eq!((pages, seen), (5, all("INBOX").chain(all("Sent")).collect()));
}
