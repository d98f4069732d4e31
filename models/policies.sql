-- The row-level security of the finished schema, as PostgreSQL tells it: for reading, since the migrations make it.
-- `make policies` writes this file, and a test compares it with the schema. What a statement may see is set
-- by postgres/scope.py.

ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE idempotency_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY idempotency_keys_delete ON idempotency_keys AS PERMISSIVE FOR DELETE TO public
    USING (user_id = current_setting('app.user_id'::text, true) OR current_setting('app.probe'::text, true) = 'expired-keys'::text AND created_at < (now() - '24:00:00'::interval));
CREATE POLICY idempotency_keys_insert ON idempotency_keys AS PERMISSIVE FOR INSERT TO public
    WITH CHECK (user_id = current_setting('app.user_id'::text, true));
CREATE POLICY idempotency_keys_select ON idempotency_keys AS PERMISSIVE FOR SELECT TO public
    USING (user_id = current_setting('app.user_id'::text, true) OR current_setting('app.probe'::text, true) = 'expired-keys'::text AND created_at < (now() - '24:00:00'::interval));
CREATE POLICY idempotency_keys_update ON idempotency_keys AS PERMISSIVE FOR UPDATE TO public
    USING (user_id = current_setting('app.user_id'::text, true))
    WITH CHECK (user_id = current_setting('app.user_id'::text, true));

ALTER TABLE service_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE service_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY service_keys_delete ON service_keys AS PERMISSIVE FOR DELETE TO public
    USING (current_setting('app.probe'::text, true) = 'service-keys'::text);
CREATE POLICY service_keys_insert ON service_keys AS PERMISSIVE FOR INSERT TO public
    WITH CHECK (current_setting('app.probe'::text, true) = 'service-keys'::text);
CREATE POLICY service_keys_select ON service_keys AS PERMISSIVE FOR SELECT TO public
    USING (current_setting('app.probe'::text, true) = 'service-keys'::text);
CREATE POLICY service_keys_update ON service_keys AS PERMISSIVE FOR UPDATE TO public
    USING (current_setting('app.probe'::text, true) = 'service-keys'::text)
    WITH CHECK (current_setting('app.probe'::text, true) = 'service-keys'::text);

ALTER TABLE tasks ENABLE ROW LEVEL SECURITY;
ALTER TABLE tasks FORCE ROW LEVEL SECURITY;
CREATE POLICY tasks_delete ON tasks AS PERMISSIVE FOR DELETE TO public
    USING (user_id = current_setting('app.user_id'::text, true));
CREATE POLICY tasks_insert ON tasks AS PERMISSIVE FOR INSERT TO public
    WITH CHECK (user_id = current_setting('app.user_id'::text, true));
CREATE POLICY tasks_probe ON tasks AS PERMISSIVE FOR SELECT TO public
    USING (COALESCE(id::text = current_setting('app.probe'::text, true), false));
CREATE POLICY tasks_select ON tasks AS PERMISSIVE FOR SELECT TO public
    USING (COALESCE(user_id = current_setting('app.user_id'::text, true), false));
CREATE POLICY tasks_update ON tasks AS PERMISSIVE FOR UPDATE TO public
    USING (user_id = current_setting('app.user_id'::text, true))
    WITH CHECK (user_id = current_setting('app.user_id'::text, true));

ALTER TABLE users ENABLE ROW LEVEL SECURITY;
ALTER TABLE users FORCE ROW LEVEL SECURITY;
CREATE POLICY users_delete ON users AS PERMISSIVE FOR DELETE TO public
    USING (id = current_setting('app.user_id'::text, true));
CREATE POLICY users_insert ON users AS PERMISSIVE FOR INSERT TO public
    WITH CHECK (id = current_setting('app.user_id'::text, true));
CREATE POLICY users_select ON users AS PERMISSIVE FOR SELECT TO public
    USING (id = current_setting('app.user_id'::text, true));
CREATE POLICY users_update ON users AS PERMISSIVE FOR UPDATE TO public
    USING (id = current_setting('app.user_id'::text, true))
    WITH CHECK (id = current_setting('app.user_id'::text, true));
