//! Tools that a client knows in another form than its provider: "custom" tools, whose argument is
//! a text, tools in a namespace, and the search for further tools that Codex makes itself. The
//! provider gets a function for each, and its calls become what the client asked for.

use std::borrow::Cow;

use super::{
    chat, ids,
    ir::{RAW_ARGUMENTS, Tool},
    json::{Json, Object},
    responses,
};
use crate::dialect::Dialect;

/// Key of the one argument of a custom tool.
pub(super) const FREE_INPUT: &str = "input";

/// Name of the function for the search for further tools.
pub(super) const SEARCH: &str = "tool_search";

/// Tools of a request that its client knows in another form than the provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClientTools(Vec<ClientTool>);

/// A tool in the form of its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientTool {
    /// Name that the provider knows.
    function: String,
    /// Name within its namespace.
    pub name: String,
    /// Namespace in which it stands.
    pub namespace: Option<String>,
    /// Form in which the client calls it.
    pub form: Form,
}

/// Form in which a client knows a tool.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A function, as providers know it.
    #[default]
    Function,
    /// A custom tool: its argument is a text.
    Free,
    /// The search for further tools, which the client makes.
    Search,
}

impl ClientTools {
    /// Returns those of the body of a request, which is nearly always none, and found out without
    /// reading the body as JSON.
    pub(crate) fn of(dialect: Dialect, body: &[u8]) -> Self {
        let says = |word: &[u8]| memchr::memmem::find(body, word).is_some();
        let request = match dialect {
            Dialect::Chat if says(b"\"custom\"") => Json::parse(body).and_then(chat::read_request),
            Dialect::Responses
                if says(b"\"custom\"") || says(b"\"namespace\"") || says(b"\"tool_search\"") =>
            {
                Json::parse(body).and_then(responses::read_request)
            }
            _ => return Self::default(),
        };
        request.map(|request| request.client_tools).unwrap_or_default()
    }

    /// Returns the tool that a provider calls by a name, where the client knows it otherwise.
    pub(super) fn find(&self, function: &str) -> Option<&ClientTool> {
        self.0.iter().find(|tool| tool.function == function)
    }

    /// Returns the form in which the client knows a tool.
    pub(super) fn form(&self, function: &str) -> Form {
        self.find(function).map_or(Form::Function, |tool| tool.form)
    }

    /// Returns whether the client takes a text for the argument of a tool.
    pub(super) fn is_free(&self, function: &str) -> bool {
        self.form(function) == Form::Free
    }

    /// Adds a tool, and returns the name of its function.
    pub(super) fn add<'a>(
        &mut self,
        namespace: Option<&str>,
        name: Cow<'a, str>,
        form: Form,
    ) -> Cow<'a, str> {
        let function = ids::function(namespace, name.clone());
        if form != Form::Function || function != name {
            self.0.push(ClientTool {
                function: function.clone().into_owned(),
                name: name.into_owned(),
                namespace: namespace.map(str::to_owned),
                form,
            });
        }
        function
    }
}

/// Returns the function for a custom tool. What its provider would hold the text to stands in the
/// description, as advice.
pub(super) fn free_tool<'a>(
    name: Cow<'a, str>,
    description: Option<Cow<'a, str>>,
    syntax: Option<Cow<'a, str>>,
    definition: Option<Cow<'a, str>>,
) -> Tool<'a> {
    let mut description = description.unwrap_or_default().into_owned();
    if let Some(definition) = definition {
        let syntax = syntax.unwrap_or_default();
        description.push_str("\n\nThe text of `input` follows this grammar (");
        description.push_str(&syntax);
        description.push_str("):\n");
        description.push_str(&definition);
    }
    let words = "The whole text for the tool, as it is: no JSON and no Markdown around it.";
    let input = Object::new().with("type", "string").with("description", words);
    let schema = Object::new()
        .with("type", "object")
        .with("properties", Object::new().with(FREE_INPUT, input))
        .with("required", vec![FREE_INPUT.into()]);
    Tool {
        name,
        description: Some(description.trim_start().to_owned().into()),
        schema: schema.into(),
        is_strict: None,
    }
}

/// Returns the text that arguments of a custom tool's function hold. Models do not always name the
/// argument as they are told, or give the text alone.
pub(super) fn free_text(arguments: &str) -> Cow<'_, str> {
    match Json::parse(arguments.as_bytes()) {
        Ok(Json::Text(text)) => text,
        Ok(Json::Object(mut object)) => {
            if object.is_empty() {
                return Cow::Borrowed("");
            }
            let named = [FREE_INPUT, RAW_ARGUMENTS].into_iter();
            let named = named.map(|key| object.take(key)).find_map(Json::into_text);
            let is_single = object.iter().count() == 1;
            let only = || object.into_values().next().filter(|_| is_single)?.into_text();
            named.or_else(only).unwrap_or(Cow::Borrowed(arguments))
        }
        _ => Cow::Borrowed(arguments),
    }
}
