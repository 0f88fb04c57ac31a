//! The REST API as a program would use it.

use std::net::SocketAddr;

use reqwest::Method;
use reqwest::blocking::{Client, RequestBuilder, Response};
use serde_json::Value;

/// An API, with or without a key.
pub struct Api {
    base: String,
    key: Option<String>,
    http: Client,
}

impl Api {
    /// The API at this address.
    pub fn new(address: SocketAddr, key: Option<&str>) -> Self {
        Self { base: format!("http://{address}"), key: key.map(ToOwned::to_owned), http: Client::new() }
    }

    /// The begin of any request.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Any request.
    pub fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Response {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().unwrap()
    }

    /// Status and JSON body.
    pub fn call(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let response = self.send(method, path, body);
        let status = response.status().as_u16();
        let text = response.text().unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// `GET` that must succeed.
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, None);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// `POST` that must succeed.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.call(Method::POST, path, Some(body));
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    /// The id of the client with this name.
    #[track_caller]
    pub fn client_id(&self, name: &str) -> String {
        self.named("/v1/clients", name)["id"].as_str().unwrap().to_owned()
    }

    /// The mapping with this name, with what is going on with it just now.
    #[track_caller]
    pub fn mapping(&self, name: &str) -> Value {
        let found = self.named("/v1/mappings", name);
        self.get(&format!("/v1/mappings/{}", found["id"].as_str().unwrap()))
    }

    #[track_caller]
    fn named(&self, list: &str, name: &str) -> Value {
        let page = self.get(&format!("{list}?limit=500"));
        let mut items = page["items"].as_array().unwrap().iter();
        items.find(|item| item["name"] == name).unwrap_or_else(|| panic!("no {name} in {page}")).clone()
    }

    /// The state of one end of the mapping with this name: of a client, or of the public port.
    #[track_caller]
    pub fn end_state(&self, mapping: &str, client: Option<&str>) -> Option<String> {
        let mapping = self.mapping(mapping);
        let ends = mapping["live"]["ends"].as_array().unwrap();
        let end = ends.iter().find(|end| end["client"].as_str() == client)?;
        Some(end["state"].as_str().unwrap().to_owned())
    }
}
