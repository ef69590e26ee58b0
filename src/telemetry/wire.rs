//! Spans as OTLP's protobuf messages, by OpenTelemetry's own definitions.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as Wire, Status};
use prost::Message;

use super::span::{Kind, Span, Value};

const SERVICE: &str = "looker-feed";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The body of an export.
pub(super) fn body(spans: &[Span]) -> Vec<u8> {
    let resource = Resource {
        attributes: vec![
            attribute("service.name", Value::Word(SERVICE)),
            attribute("service.version", Value::Word(VERSION)),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: SERVICE.to_owned(),
        version: VERSION.to_owned(),
        ..InstrumentationScope::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans: spans.iter().map(wire).collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    request.encode_to_vec()
}

fn wire(span: &Span) -> Wire {
    let kind = match span.kind {
        Kind::Internal => SpanKind::Internal,
        Kind::Server => SpanKind::Server,
        Kind::Client => SpanKind::Client,
    };
    let link = span.link.map(|(trace, id)| Link {
        trace_id: trace.0.to_vec(),
        span_id: id.0.to_vec(),
        ..Link::default()
    });
    let status = span.failed.map(|why| Status {
        message: why.to_owned(),
        code: StatusCode::Error.into(),
    });
    Wire {
        trace_id: span.trace.0.to_vec(),
        span_id: span.id.0.to_vec(),
        parent_span_id: span.parent.map_or_else(Vec::new, |id| id.0.to_vec()),
        name: span.name.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: span.start,
        end_time_unix_nano: span.end,
        attributes: span
            .attributes
            .iter()
            .map(|(name, value)| attribute(name, *value))
            .collect(),
        links: link.into_iter().collect(),
        status,
        ..Wire::default()
    }
}

fn attribute(name: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Word(word) => any_value::Value::StringValue(word.to_owned()),
        Value::Id(id) => any_value::Value::StringValue(format!("{:032x}", u128::from_be_bytes(id))),
        Value::Number(number) => {
            any_value::Value::IntValue(i64::try_from(number).unwrap_or(i64::MAX))
        }
    };
    KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::span::{SpanId, TraceId};
    use super::*;

    #[test]
    fn a_span_comes_back_as_it_was() {
        let span = Span {
            name: "request",
            trace: TraceId([1; 16]),
            id: SpanId([2; 8]),
            parent: Some(SpanId([3; 8])),
            kind: Kind::Client,
            start: 5,
            end: 7,
            attributes: vec![
                ("a", Value::Number(u64::MAX)),
                ("b", Value::Id([0xab; 16])),
                ("c", Value::Word("word")),
            ],
            link: Some((TraceId([4; 16]), SpanId([5; 8]))),
            failed: Some("no answer"),
        };
        let read = ExportTraceServiceRequest::decode(&*body(&[span])).unwrap();
        let resource = &read.resource_spans[0];
        let names: Vec<_> = resource
            .resource
            .iter()
            .flat_map(|one| &one.attributes)
            .collect();
        assert_eq!(names[0].key, "service.name");
        let span = &resource.scope_spans[0].spans[0];
        assert_eq!(
            (&span.trace_id[..], &span.span_id[..]),
            (&[1; 16][..], &[2; 8][..])
        );
        assert_eq!(span.parent_span_id, [3; 8]);
        assert_eq!(span.kind, SpanKind::Client as i32);
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (5, 7));
        assert_eq!(span.links[0].trace_id, [4; 16]);
        let status = span.status.as_ref().unwrap();
        assert_eq!(
            (&*status.message, status.code),
            ("no answer", StatusCode::Error as i32)
        );
        let values: Vec<_> = span
            .attributes
            .iter()
            .map(|one| one.value.clone().unwrap().value)
            .collect();
        assert_eq!(
            values,
            [
                Some(any_value::Value::IntValue(i64::MAX)),
                Some(any_value::Value::StringValue("ab".repeat(16))),
                Some(any_value::Value::StringValue("word".to_owned())),
            ]
        );
    }
}
