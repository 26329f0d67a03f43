//! What files are an identity, and when another one is taken over.

use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{CertificateParams, KeyPair};
use tokio::time::timeout;

use super::*;
use crate::identity::tests::Authority;

const NAME: &str = "web.mesh";
const LIFE: Duration = Duration::from_secs(600);
/// Every wait ends by then.
const DEADLINE: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_millis(5);

/// A directory with the three files; gone at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir-identity-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn files(&self) -> Files {
        Files {
            cert: self.0.join("cert.pem"),
            key: self.0.join("key.pem"),
            authority: self.0.join("ca.pem"),
        }
    }

    fn put(&self, authority: &Authority, name: &str, life: Duration) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let csr = params.serialize_request(&key).unwrap();
        let certified = authority.sign(csr.der(), &["spiffe://default/web".into()], life);
        let cert = ::pem::Pem::new("CERTIFICATE", certified.chain[0].to_vec());
        let files = self.files();
        std::fs::write(files.authority, authority.bundle()).unwrap();
        std::fs::write(files.key, key.serialize_pem()).unwrap();
        // The last one: whoever looks in between finds files that do not belong together.
        std::fs::write(files.cert, ::pem::encode(&cert)).unwrap();
    }

    fn read(&self) -> Result<Identity, String> {
        let read = self.files().read(&NAME.into());
        read.map_err(|error| error.to_string())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn three_files_are_an_identity() {
    let directory = Directory::new();
    directory.put(&Authority::new("mesh"), NAME, LIFE);
    let identity = directory.read().unwrap();
    assert_eq!(&*identity.name, NAME);
    let left = identity.expires.duration_since(SystemTime::now()).unwrap();
    assert!(left > LIFE / 2 && left <= LIFE, "{left:?}");
}

#[test]
fn what_is_wrong_names_its_file() {
    let authority = Authority::new("mesh");
    let directory = Directory::new();
    let files = directory.files();
    let error = directory.read().unwrap_err();
    assert!(error.contains("cert.pem cannot be read"), "{error}");
    for (file, text, said) in [
        (
            &files.cert,
            "nothing",
            "cert.pem holds no PEM block of the kind CERTIFICATE",
        ),
        (
            &files.key,
            "nothing",
            "key.pem holds no PEM block of the kind PRIVATE KEY",
        ),
        (&files.authority, "nothing", "ca.pem: the trust bundle"),
        (
            &files.authority,
            &Authority::new("other").bundle(),
            "cert.pem: the certificate is to be for web.mesh",
        ),
        (
            &files.key,
            &KeyPair::generate().unwrap().serialize_pem(),
            "cert.pem: the certificate is to be for web.mesh",
        ),
    ] {
        directory.put(&authority, NAME, LIFE);
        std::fs::write(file, text).unwrap();
        let error = directory.read().unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    directory.put(&authority, "api.mesh", LIFE);
    let error = directory.read().unwrap_err();
    assert!(error.contains("is to be for web.mesh"), "{error}");
    std::fs::write(
        &files.key,
        vec![b'-'; usize::try_from(FILE_SIZE).unwrap() + 1],
    )
    .unwrap();
    let error = directory.read().unwrap_err();
    assert!(error.contains("longer than"), "{error}");
}

#[tokio::test]
async fn a_new_certificate_is_taken_over_and_a_broken_one_is_not() {
    let authority = Authority::new("mesh");
    let directory = Directory::new();
    directory.put(&authority, NAME, LIFE);
    let (force, mut seen) = watch::channel(None::<Arc<Identity>>);
    let figures = Certificates::default();
    let stop = CancellationToken::new();
    let of = (directory.files(), Arc::from(NAME));
    let following = tokio::spawn(follow(of, SOON, (force, figures.clone()), stop.clone()));
    let mut next = async |what: &str| {
        timeout(DEADLINE, seen.changed())
            .await
            .expect(what)
            .unwrap();
        seen.borrow_and_update().clone()
    };
    let first = next("the first").await.unwrap();
    directory.put(&authority, NAME, 2 * LIFE);
    let second = next("the second").await.unwrap();
    assert!(second.expires > first.expires);
    // The broken one is seen before the third is written, and nothing comes of it.
    let before = figures.read().unwrap().2;
    std::fs::write(directory.files().cert, "nothing").unwrap();
    let failed = async {
        while figures.read().unwrap().2 == before {
            tokio::time::sleep(SOON).await;
        }
    };
    timeout(DEADLINE, failed).await.expect("it is looked at");
    directory.put(&authority, NAME, Duration::from_secs(2));
    let third = next("the third").await.unwrap();
    assert!(third.expires < second.expires);
    assert!(
        next("its end").await.is_none(),
        "a certificate that has ended is no identity"
    );
    stop.cancel();
    following.await.unwrap();
}
