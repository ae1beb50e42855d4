//! The way of blobs and manifests into a registry. A blob goes in one request, and from its beginning again if that fails.

use super::exchange::{self, Ask};
use super::token::escaped;
use super::{Access, Error, Registry};
use kvmlet_image::Digest;
use std::io::{self, Read};
use ureq::http::{Method, Request, Response, StatusCode, header};
use ureq::{Body, SendBody};

/// How often a blob begins.
const ATTEMPTS: u32 = 3;

impl Registry {
    /// Whether a repository has a blob.
    ///
    /// # Errors
    /// When the registry does not say.
    pub fn has(&self, access: &Access, digest: &Digest) -> Result<bool, Error> {
        let what = format!("{}@{digest}", access.repository());
        let path = format!("/v2/{}/blobs/{digest}", access.repository());
        let ask = Ask {
            method: Method::HEAD,
            ..Ask::get(format!("{}{path}", self.base))
        };
        let answer = self.ask(&ask, access, &what)?;
        match answer.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.status(answer, &what, self.knows(access)?)),
        }
    }

    /// Has a repository have another one's blob, too; tells whether it has it then.
    ///
    /// # Errors
    /// When the registry does not answer. That it does not do that is no error.
    pub fn mount(&self, access: &Access, digest: &Digest, from: &str) -> Result<bool, Error> {
        let what = format!("{}@{digest}", access.repository());
        let query = format!("?mount={digest}&from={}", escaped(from));
        let answer = self.ask(&self.upload(access, &query), access, &what)?;
        Ok(answer.status() == StatusCode::CREATED)
    }

    /// Uploads a blob; `open` begins it anew.
    ///
    /// # Errors
    /// When it cannot be read, or the registry does not take it.
    pub fn put(
        &self,
        access: &Access,
        digest: &Digest,
        size: u64,
        open: &mut dyn FnMut() -> io::Result<Box<dyn Read>>,
    ) -> Result<(), Error> {
        let what = format!("{}@{digest}", access.repository());
        let mut attempt = 1;
        loop {
            match self.put_once(access, digest, size, open, &what) {
                Err(error) if attempt < ATTEMPTS && error.is_passing() => attempt += 1,
                other => return other,
            }
        }
    }

    fn put_once(
        &self,
        access: &Access,
        digest: &Digest,
        size: u64,
        open: &mut dyn FnMut() -> io::Result<Box<dyn Read>>,
        what: &str,
    ) -> Result<(), Error> {
        let answer = self.ask(&self.upload(access, ""), access, what)?;
        if answer.status() != StatusCode::ACCEPTED {
            return Err(self.status(answer, what, self.knows(access)?));
        }
        let location = exchange::text(answer.headers(), &header::LOCATION);
        let location = location.and_then(|it| exchange::resolve(&self.base_url(), &it));
        let location = location.ok_or_else(|| self.wrong(what, "no place to upload to"))?;
        let separator = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{separator}digest={digest}");
        let mut request = Request::builder()
            .method(Method::PUT)
            .uri(&url)
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_LENGTH, size);
        if exchange::is_same_origin(&url, &self.base)
            && let Some(authorization) = self.authorization(access, what)?
        {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let failed = |source| Error::Unreachable {
            registry: self.name.clone(),
            source: Box::new(source),
        };
        let mut body = open().map_err(|error| failed(error.into()))?;
        let request = request.body(SendBody::from_reader(&mut body));
        let answer = request.map_err(ureq::Error::from);
        let answer = answer
            .and_then(|request| self.agent.run(request))
            .map_err(failed)?;
        self.done(answer, access, what)
    }

    /// Gives a manifest a name, or only its digest.
    ///
    /// # Errors
    /// When the registry does not take it.
    pub fn put_manifest(
        &self,
        access: &Access,
        which: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let what = format!("{}:{which}", access.repository());
        let path = format!("/v2/{}/manifests/{which}", access.repository());
        let ask = Ask {
            method: Method::PUT,
            body: bytes,
            ..Ask::get(format!("{}{path}", self.base))
        };
        let ask = ask.header(header::CONTENT_TYPE, media_type);
        let answer = self.ask(&ask, access, &what)?;
        self.done(answer, access, &what)
    }

    fn done(&self, answer: Response<Body>, access: &Access, what: &str) -> Result<(), Error> {
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(self.status(answer, what, self.knows(access)?)),
        }
    }

    fn upload(&self, access: &Access, query: &str) -> Ask<'static> {
        let path = format!("/v2/{}/blobs/uploads/{query}", access.repository());
        Ask {
            method: Method::POST,
            ..Ask::get(format!("{}{path}", self.base))
        }
    }

    fn base_url(&self) -> String {
        format!("{}/v2/", self.base)
    }
}
