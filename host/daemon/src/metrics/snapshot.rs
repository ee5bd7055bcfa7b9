//! The host's own families, whose values are looked up at each scrape.

use prometheus::{
    CounterVec, GaugeVec, Opts,
    core::Collector as _,
    proto::{self, Bucket, LabelPair, Metric, MetricFamily, MetricType},
};

use super::Kind;

/// One histogram of a family.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramRow {
    /// The values of its labels.
    pub labels: Vec<String>,
    /// Rising upper bounds, each with the number of values that are at most that.
    pub buckets: Vec<(f64, u64)>,
    /// Number of values.
    pub count: u64,
    /// Sum of the values.
    pub sum: f64,
}

impl HistogramRow {
    fn into_metric(self, names: &[&str]) -> Metric {
        let label = |(name, value): (&&str, String)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value);
            pair
        };
        let bucket = |(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        };
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(self.buckets.into_iter().map(bucket).collect());
        histogram.set_sample_count(self.count);
        histogram.set_sample_sum(self.sum);
        let mut metric = Metric::from_label(names.iter().zip(self.labels).map(label).collect());
        metric.set_histogram(histogram);
        metric
    }
}

/// Builder of families whose values are looked up at each scrape.
#[derive(Debug, Default)]
pub struct Snapshot {
    families: Vec<MetricFamily>,
}

impl Snapshot {
    /// Adds a family; each row is the values of its labels and the value.
    pub fn family(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        labels: &[&str],
        rows: impl IntoIterator<Item = (Vec<String>, f64)>,
    ) -> &mut Self {
        let options = Opts::new(name, help);
        let result = if kind == Kind::Counter {
            CounterVec::new(options, labels).map(|vector| {
                for (values, value) in rows {
                    let texts: Vec<&str> = values.iter().map(String::as_str).collect();
                    vector.with_label_values(&texts).inc_by(value.max(0.0));
                }
                vector.collect()
            })
        } else {
            GaugeVec::new(options, labels).map(|vector| {
                for (values, value) in rows {
                    let texts: Vec<&str> = values.iter().map(String::as_str).collect();
                    vector.with_label_values(&texts).set(value);
                }
                vector.collect()
            })
        };
        match result {
            Ok(families) => self.families.extend(families),
            Err(error) => tracing::error!(name, %error, "cannot build a metric family"),
        }
        self
    }

    /// Adds a family of histograms that were counted elsewhere.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
        rows: impl IntoIterator<Item = HistogramRow>,
    ) -> &mut Self {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(rows.into_iter().map(|row| row.into_metric(labels)).collect());
        self.families.push(family);
        self
    }

    /// Returns the families.
    #[must_use]
    pub fn finish(self) -> Vec<MetricFamily> {
        self.families
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn writes_histograms_that_were_counted_elsewhere() {
        let row = HistogramRow {
            labels: vec!["ingest".to_owned()],
            buckets: vec![(0.1, 2), (1.0, 3)],
            count: 4,
            sum: 7.5,
        };
        let mut own = Snapshot::default();
        own.histogram("h", "H.", &["module"], [row]);
        let text = Metrics::default().encode(own.finish());
        let expected = "# HELP h H.\n# TYPE h histogram\n\
                        h_bucket{module=\"ingest\",le=\"0.1\"} 2\n\
                        h_bucket{module=\"ingest\",le=\"1\"} 3\n\
                        h_bucket{module=\"ingest\",le=\"+Inf\"} 4\n\
                        h_sum{module=\"ingest\"} 7.5\nh_count{module=\"ingest\"} 4\n";
        assert_eq!(text, expected);
    }
}
