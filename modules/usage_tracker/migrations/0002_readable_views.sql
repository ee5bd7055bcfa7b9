-- Views for people who look into the file with `sqlite3`: names instead of ids.

CREATE VIEW requests AS
SELECT
    r.id,
    strftime('%Y-%m-%dT%H:%M:%fZ', r.ended_at / 1000.0, 'unixepoch') AS ended_at,
    provider.text AS provider,
    model.text AS model,
    project.text AS project,
    client.text AS client,
    s.key AS session,
    r.input_tokens,
    r.cache_read_tokens,
    r.output_tokens,
    r.cost_nano_usd / 1e9 AS cost_usd,
    r.duration_ms,
    r.ttft_ms
FROM request r
LEFT JOIN session s ON s.id = r.session
LEFT JOIN name provider ON provider.id = r.provider
LEFT JOIN name model
    ON model.id = coalesce(r.response_model, r.routed_model, r.request_model)
LEFT JOIN name project ON project.id = r.project
LEFT JOIN name client ON client.id = r.client;

CREATE VIEW daily AS
SELECT
    date(u.day * 86400, 'unixepoch') AS day,
    provider.text AS provider,
    model.text AS model,
    project.text AS project,
    client.text AS client,
    branch.text AS branch,
    u.requests,
    u.errors,
    u.input,
    u.output,
    u.cache_read,
    u.cache_write,
    u.reasoning,
    u.unpriced,
    CASE WHEN u.priced > 0 THEN u.cost / 1e9 END AS cost_usd
FROM usage_day u
LEFT JOIN name provider ON provider.id = u.provider
LEFT JOIN name model ON model.id = u.model
LEFT JOIN name project ON project.id = u.project
LEFT JOIN name client ON client.id = u.client
LEFT JOIN name branch ON branch.id = u.branch;
