//! Folders are made, renamed and deleted.

use posthorn_api::mailbox::v1 as api;
use tonic::Code;

use crate::world::{ALICE, World, selection};

fn create(folder: &str) -> api::CreateFolderRequest {
    api::CreateFolderRequest { mailbox: ALICE.into(), folder: folder.into() }
}

fn rename(from: &str, to: &str) -> api::RenameFolderRequest {
    api::RenameFolderRequest { mailbox: ALICE.into(), folder: from.into(), new_name: to.into() }
}

fn delete(folder: &str) -> api::DeleteFolderRequest {
    api::DeleteFolderRequest { mailbox: ALICE.into(), folder: folder.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_made_again_is_another() {
    let mut world = World::start_with(|config| config.mailbox.max_folders = 8).await;
    let alice = world.account(ALICE, 0);
    let first = world.mailbox.create_folder(create("Work")).await.unwrap().into_inner().folder.unwrap();
    assert_eq!((first.name.as_str(), first.uid_next, first.messages), ("Work", 1, 0));
    assert_eq!(world.mailbox.create_folder(create("Work")).await.unwrap_err().code(), Code::AlreadyExists);
    world.deliver(alice, "\r\n").await;
    let request = api::MoveMessagesRequest {
        mailbox: ALICE.into(),
        selection: selection("", &[1]),
        to_folder: "Work".into(),
    };
    world.mailbox.move_messages(request).await.unwrap();
    world.mailbox.delete_folder(delete("Work")).await.unwrap();
    assert_eq!(world.mailbox.delete_folder(delete("Work")).await.unwrap_err().code(), Code::NotFound);
    let again = world.mailbox.create_folder(create("Work")).await.unwrap().into_inner().folder.unwrap();
    assert!(again.uid_validity > first.uid_validity);
    // What went with the folder is told under its name.
    let request = api::WatchRequest { mailbox: ALICE.into(), folder: "Work".into(), after_modseq: Some(0) };
    let mut stream = world.mailbox.watch(request).await.unwrap().into_inner();
    stream.message().await.unwrap();
    let gone = stream.message().await.unwrap().unwrap();
    let expunged = api::MessageExpunged { folder: "Work".into(), uid: 1 };
    assert_eq!((gone.change, gone.modseq), (Some(api::watch_response::Change::Expunged(expunged)), 4));

    world.mailbox.create_folder(create("Eight")).await.unwrap();
    assert_eq!(
        world.mailbox.create_folder(create("Nine")).await.unwrap_err().code(),
        Code::ResourceExhausted
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_renamed_with_those_below_it() {
    let mut world = World::start().await;
    world.account(ALICE, 0);
    for folder in ["Archive/2025", "Archive/2026", "Archives"] {
        world.mailbox.create_folder(create(folder)).await.unwrap();
    }
    let renamed = world.mailbox.rename_folder(rename("Archive", "Old")).await.unwrap().into_inner();
    assert_eq!(renamed.folder.unwrap().special_use, "\\Archive");
    let mut names: Vec<_> = world.folders(ALICE).await.into_keys().collect();
    names.sort();
    let want = ["Archives", "Drafts", "INBOX", "Junk", "Old", "Old/2025", "Old/2026", "Sent", "Trash"];
    assert_eq!(names, want);
    for (from, to, code) in [
        ("Old", "Sent", Code::AlreadyExists),
        ("Old", "Old/2027", Code::FailedPrecondition),
        ("inbox", "Mail", Code::FailedPrecondition),
        ("Nowhere", "Somewhere", Code::NotFound),
        ("Old", "a//b", Code::InvalidArgument),
    ] {
        assert_eq!(
            world.mailbox.rename_folder(rename(from, to)).await.unwrap_err().code(),
            code,
            "{from} to {to}"
        );
    }
    assert_eq!(
        world.mailbox.delete_folder(delete("INBOX")).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trash_that_is_made_again_is_the_trash() {
    let mut world = World::start().await;
    world.account(ALICE, 0);
    world.mailbox.delete_folder(delete("Trash")).await.unwrap();
    let trash = world.mailbox.create_folder(create("Trash")).await.unwrap().into_inner().folder.unwrap();
    assert_eq!(trash.special_use, "\\Trash");
    // But not a second one beside it.
    world.mailbox.rename_folder(rename("Trash", "Bin")).await.unwrap();
    let other = world.mailbox.create_folder(create("Trash")).await.unwrap().into_inner().folder.unwrap();
    assert_eq!(other.special_use, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_is_not_there_is_not_found() {
    let mut world = World::start().await;
    let request = api::ListFoldersRequest { mailbox: "nobody@example.test".into() };
    assert_eq!(world.mailbox.list_folders(request).await.unwrap_err().code(), Code::NotFound);
    world.account(ALICE, 0);
    let list = |folder: &str| api::ListMessagesRequest {
        mailbox: ALICE.into(),
        folder: folder.into(),
        ..Default::default()
    };
    // Nothing has come yet: the first folders are there all the same.
    assert!(world.mailbox.list_messages(list("Sent")).await.unwrap().into_inner().messages.is_empty());
    assert_eq!(world.mailbox.list_messages(list("Nowhere")).await.unwrap_err().code(), Code::NotFound);
}
