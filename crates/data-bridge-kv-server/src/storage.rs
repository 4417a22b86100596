//! Object storage as a place for snapshots: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, and file:///path,
//! which keeps the same objects in a folder. Credentials, region and endpoint come from the environment, as each provider's
//! own tools name them.
//!
//! A snapshot is the objects `<prefix>/snapshot-<unix ms>/<file>`. Calls block, on a runtime of their own.

mod object;
mod trouble;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use data_bridge_kv::disk::Disk;
use data_bridge_kv_model::{Error, ErrorKind, Result};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::runtime::{Builder, Runtime};

use object::Objects;
use trouble::Trouble;

/// Of one request, and of all its retries.
const REQUEST: Duration = Duration::from_secs(120);
const RETRIES: (usize, Duration) = (5, Duration::from_secs(60));

/// A bucket, and where in it.
#[derive(Clone)]
pub struct Storage {
    inner: Arc<Inner>,
    prefix: Path,
}

struct Inner {
    store: Arc<dyn ObjectStore>,
    /// Scheme and bucket, to be shown.
    bucket: String,
    /// Taken when this goes, which may be on a thread that must not wait.
    runtime: Option<Runtime>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Storage {
    /// The storage that a URL names; nothing is asked of it yet.
    ///
    /// # Errors
    /// `InvalidArgument` if the URL or the environment does not make sense.
    pub fn open(url: &str) -> Result<Storage> {
        let wrong = |text: &str| Error::invalid(format!("{url}: {text}"));
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("not a URL"))?;
        if scheme == "file" {
            return Storage::in_folder(url, rest);
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(wrong("expected a bucket, such as s3://bucket/prefix"));
        }
        let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|error| wrong(&error.to_string()))?;
        let bucket = format!("{scheme}://{bucket}");
        let store = match scheme {
            "s3" => {
                let builder = AmazonS3Builder::from_env().with_url(&bucket).with_retry(retries());
                let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
                let is_plain = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
                built(builder.with_client_options(options(is_plain)).build())
            }
            "gs" => {
                built(GoogleCloudStorageBuilder::from_env().with_url(&bucket).with_retry(retries()).build())
            }
            "az" => {
                let builder = MicrosoftAzureBuilder::from_env().with_url(&bucket).with_retry(retries());
                built(builder.build())
            }
            _ => return Err(wrong("expected s3://, gs://, az:// or file://")),
        };
        let settings = "AWS_*, GOOGLE_* or AZURE_STORAGE_* of the environment do not fit";
        let store = store.map_err(|error| wrong(&format!("{settings} ({error})")))?;
        Storage::new(store, bucket, prefix)
    }

    fn in_folder(url: &str, path: &str) -> Result<Storage> {
        let failed = |text: String| Error::new(ErrorKind::Unavailable, format!("{url}: {text}"));
        if !path.starts_with('/') {
            return Err(Error::invalid(format!("{url}: expected an absolute path, as in file:///backups")));
        }
        let path = PathBuf::from(path);
        std::fs::create_dir_all(&path).map_err(|error| failed(error.to_string()))?;
        let store = LocalFileSystem::new_with_prefix(&path).map_err(|error| failed(error.to_string()))?;
        let store = store.with_automatic_cleanup(true).with_fsync(true);
        Storage::new(Arc::new(store), url.trim_end_matches('/').to_owned(), Path::default())
    }

    /// A store by itself, shown as `bucket`.
    pub fn new(store: Arc<dyn ObjectStore>, bucket: String, prefix: Path) -> Result<Storage> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("kv-storage").enable_all().build();
        let runtime = runtime.map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()))?;
        Ok(Storage { inner: Arc::new(Inner { store, bucket, runtime: Some(runtime) }), prefix })
    }

    /// What is below a name.
    #[must_use]
    pub fn below(&self, name: &str) -> Storage {
        Storage { inner: Arc::clone(&self.inner), prefix: self.prefix.clone().join(name) }
    }

    /// The objects here as a disk.
    pub fn disk(&self) -> Box<dyn Disk> {
        Box::new(Objects::new(self.clone()))
    }

    /// The names right below here under which objects stand, in order.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let found = self.wait(self.store().list_with_delimiter(Some(&self.prefix)))?;
        let mut names: Vec<String> = found.common_prefixes.iter().filter_map(last_part).collect();
        names.sort();
        Ok(names)
    }

    /// Removes every object here; the one of this name first.
    pub fn remove(&self, first: &str) -> io::Result<()> {
        let found = self.wait(self.store().list_with_delimiter(Some(&self.prefix)))?;
        let mut paths: Vec<Path> = found.objects.into_iter().map(|object| object.location).collect();
        paths.sort_by_key(|path| last_part(path).as_deref() != Some(first));
        paths.iter().try_for_each(|path| self.wait(self.store().delete(path)))
    }

    fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.inner.store
    }

    /// Does what takes time, on the storage's runtime.
    fn wait<T>(&self, act: impl Future<Output = object_store::Result<T>>) -> io::Result<T> {
        let runtime = self.inner.runtime.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        runtime.block_on(act).map_err(|error| Trouble::of(&error).at(&self.inner.bucket))
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.prefix.as_ref().is_empty() { "" } else { "/" };
        write!(out, "{}{slash}{}", self.inner.bucket, self.prefix)
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Storage({self})")
    }
}

fn built<S: ObjectStore>(store: object_store::Result<S>) -> object_store::Result<Arc<dyn ObjectStore>> {
    store.map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
}

fn last_part(path: &Path) -> Option<String> {
    path.filename().map(str::to_owned)
}

fn retries() -> RetryConfig {
    RetryConfig { max_retries: RETRIES.0, retry_timeout: RETRIES.1, ..RetryConfig::default() }
}

/// Of the client; whoever names an endpoint of http:// means that.
fn options(is_plain: bool) -> ClientOptions {
    ClientOptions::new().with_timeout(REQUEST).with_allow_http(is_plain)
}
