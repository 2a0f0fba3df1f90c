//! A client that keeps its SMTP connection while it is let.

use std::net::SocketAddr;
use std::time::Duration;

use posthorn_testkit::smtp_client::{Reply, SmtpClient, dot_stuffed};

use super::{Answer, Client, Message, SENDER};
use crate::queued_as;

pub(super) async fn run(mut client: Client, server: SocketAddr) {
    let mut session = None;
    let mut number = 0;
    while let Some(message) = client.next(number).await {
        let answer = hand_in(&mut session, server, &message).await;
        if !answer.is_accepted() {
            session = None;
            // A client that was put off comes back a little later.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        client.note(message, answer);
        number += 1;
    }
}

async fn hand_in(session: &mut Option<SmtpClient>, server: SocketAddr, message: &Message) -> Answer {
    if let Err(answer) = envelope(session, server, message).await {
        return answer;
    }
    let client = session.as_mut().expect("the envelope went over it");
    if let Err(reason) = client.send(&dot_stuffed(&message.content())).await {
        // The dot is the last of what was to be sent.
        return Answer::Broken(reason.to_string());
    }
    match client.reply().await {
        Ok(reply) => match queued_as(&reply) {
            Ok(id) => Answer::Accepted(id),
            Err(_) => refusal(&reply),
        },
        Err(_) => Answer::Unknown,
    }
}

/// Up to the server's 354.
async fn envelope(
    session: &mut Option<SmtpClient>,
    server: SocketAddr,
    message: &Message,
) -> Result<(), Answer> {
    let broken = |reason: anyhow::Error| Answer::Broken(format!("{reason:#}"));
    let mut commands = Vec::new();
    if session.is_none() {
        let (client, greeting) = SmtpClient::connect(server).await.map_err(broken)?;
        expect(&greeting, 220)?;
        *session = Some(client);
        commands.push(("EHLO client.test".to_owned(), 250));
    }
    commands.push((format!("MAIL FROM:<{SENDER}>"), 250));
    let notify = if message.to.is_to_be_told() { " NOTIFY=SUCCESS,FAILURE" } else { "" };
    commands.extend(message.recipients.iter().map(|to| (format!("RCPT TO:<{to}>{notify}"), 250)));
    commands.push(("DATA".to_owned(), 354));
    let client = session.as_mut().expect("it was opened above");
    for (command, code) in commands {
        expect(&client.command(&command).await.map_err(broken)?, code)?;
    }
    Ok(())
}

fn expect(reply: &Reply, code: u16) -> Result<(), Answer> {
    if reply.code == code { Ok(()) } else { Err(refusal(reply)) }
}

fn refusal(reply: &Reply) -> Answer {
    match reply.code {
        421 => Answer::Leaving,
        500.. => Answer::Refused(format!("{reply:?}")),
        _ => Answer::NotNow(format!("{reply:?}")),
    }
}
