//! What plays in the demo: the services, the bot, their proxies and the table, from the start to an
//! orderly end. Made by `demo`, which decides how long it plays.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::bot::Bot;
use super::client::Client;
use super::crew::Crew;
use super::documents::{Member, documents};
use super::proxies::Proxy;
use super::rates::History;
use super::screen::Screen;
use super::services::{Voting, Web, serve};
use super::{ports, table};

/// Between two scrapes, and two tables.
const INTERVAL: Duration = Duration::from_secs(1);

/// How it is played.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    /// For ever, if none.
    pub duration: Option<Duration>,
    /// Whether only the last table is shown.
    pub silent: bool,
    /// Requests of the bot a second.
    pub rate: u32,
}

fn members(from: Option<u16>) -> anyhow::Result<[Member; 3]> {
    let [bot, web, voting] = ports::places(["bot", "web", "voting"], from, std::process::id())?;
    let member = |name, place, calls| Member { name, place, calls };
    Ok([
        member("bot", bot, Some("web")),
        member("web", web, Some("voting")),
        member("voting", voting, None),
    ])
}

/// Everything that runs.
pub(super) struct Stage {
    members: [Member; 3],
    proxies: Vec<Proxy>,
    bot: Arc<Bot>,
    screen: Screen<std::io::Stdout>,
    crew: Crew,
}

impl Stage {
    /// Nothing runs yet. Ports are free ones, or those from a number on.
    pub(super) fn new(from: Option<u16>, screen: Screen<std::io::Stdout>) -> anyhow::Result<Self> {
        Ok(Self {
            members: members(from)?,
            proxies: Vec::new(),
            bot: Arc::default(),
            screen,
            crew: Crew::default(),
        })
    }

    /// Starts everything and shows it; returns when the time is over or something fails.
    pub(super) async fn play(&mut self, program: Program) -> anyhow::Result<()> {
        self.start_services().await?;
        let documents = documents(&self.members);
        for member in &self.members {
            let proxy = Proxy::start(member, &documents, &self.crew).await?;
            self.proxies.push(proxy);
        }
        for proxy in &mut self.proxies {
            proxy.ready().await?;
        }
        if !program.silent {
            self.screen.print(&self.introduction())?;
        }
        let mut histories = <[History; 3]>::default();
        self.scrape(&mut histories).await?;
        let [bot, ..] = &self.members;
        // Held here too, so that its connections are still open in the last table.
        let web = Client::new(bot.place.outbound, "web", self.crew.clone());
        let web = Arc::new(web);
        self.crew.spawn(Arc::clone(&self.bot).visit(
            Arc::clone(&web),
            program.rate,
            self.crew.clone(),
        ));
        let watched = self.watch(&mut histories, program.silent);
        match program.duration {
            Some(duration) => timeout(duration, watched).await.unwrap_or(Ok(()))?,
            None => watched.await?,
        }
        self.conclude(&mut histories).await
    }

    async fn start_services(&self) -> anyhow::Result<()> {
        let [bot, web, voting] = &self.members;
        let crew = || self.crew.clone();
        let calls_voting = Client::new(web.place.outbound, "voting", crew());
        let web_service = Arc::new(Web {
            voting: calls_voting,
        });
        let voting_service = Arc::new(Voting::default());
        let own_page = Arc::clone(&self.bot);
        self.crew.spawn(serve(listen(bot).await?, own_page, crew()));
        self.crew
            .spawn(serve(listen(web).await?, web_service, crew()));
        self.crew
            .spawn(serve(listen(voting).await?, voting_service, crew()));
        Ok(())
    }

    /// Scrapes and shows for ever, or until a proxy ends.
    async fn watch(&mut self, histories: &mut [History; 3], silent: bool) -> anyhow::Result<()> {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await; // the first is at once
        loop {
            ticks.tick().await;
            for proxy in &mut self.proxies {
                proxy.check().await?;
            }
            self.scrape(histories).await?;
            if !silent {
                self.screen.draw(&table_text(&self.members, histories))?;
            }
        }
    }

    async fn scrape(&self, histories: &mut [History; 3]) -> anyhow::Result<()> {
        for (proxy, history) in self.proxies.iter().zip(histories) {
            let scrape = proxy.scrape().await;
            let scrape = scrape
                .with_context(|| format!("the proxy of {} (process {})", proxy.name, proxy.pid))?;
            history.push(Instant::now(), scrape);
        }
        Ok(())
    }

    /// Lets the bot come to rest, and sets what it sent beside what was counted.
    async fn conclude(&mut self, histories: &mut [History; 3]) -> anyhow::Result<()> {
        self.bot.rest().await;
        self.scrape(histories).await?;
        self.screen.draw(&table_text(&self.members, histories))?;
        let counted = |index: usize, direction| {
            let labels = [("direction", direction), ("authority", "web")];
            let scrape = histories[index].latest();
            scrape.map_or(0.0, |scrape| scrape.sum("request_total", &labels))
        };
        let text = format!(
            "The bot sent {} requests; its proxy counted {}, that of web {}.\n",
            self.bot.sent(),
            counted(0, "outbound"),
            counted(1, "inbound"),
        );
        Ok(self.screen.print(&text)?)
    }

    /// Ends everything; the proxies all at once, whatever becomes of one of them.
    pub(super) async fn end(&mut self) -> anyhow::Result<()> {
        self.bot.rest().await;
        let mut ends = tokio::task::JoinSet::new();
        for proxy in self.proxies.drain(..) {
            ends.spawn(proxy.end());
        }
        let ended = ends.join_all().await.into_iter().collect();
        self.crew.end().await;
        ended
    }

    fn introduction(&self) -> String {
        let [bot, web, voting] = &self.members;
        let lines: String = [bot, web, voting]
            .into_iter()
            .zip(&self.proxies)
            .map(|(member, proxy)| {
                format!(
                    "  {:<7} http://{}/metrics  http://{}/metrics  process {}\n",
                    member.name, member.place.admin, member.place.metrics, proxy.pid
                )
            })
            .collect();
        format!(
            "A bot votes on web, web asks voting; each has its own proxy. Some votes fail or are slow, on purpose.\n\
             Metrics of the proxies, on the admin port and on the Mesh's endpoint:\n{lines}\
             Through the proxies:\n  curl http://{}/\n  curl -X POST http://{}/vote/tea\n\
             \x20 curl http://{}/\nCtrl-C ends all of it.\n\n",
            web.place.inbound, voting.place.inbound, bot.place.inbound
        )
    }
}

async fn listen(member: &Member) -> anyhow::Result<TcpListener> {
    let address = member.place.application;
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{} cannot listen on {address}", member.name))
}

fn table_text(members: &[Member; 3], histories: &[History; 3]) -> String {
    let rows: Vec<_> = members
        .iter()
        .zip(histories)
        .flat_map(|(member, history)| table::rows(member.name, history))
        .collect();
    table::render(&rows)
}
