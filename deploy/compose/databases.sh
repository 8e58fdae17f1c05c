# A role and a database for each owner; no owner may look into another's. Run once, by the image, on an empty volume.
psql --set=ON_ERROR_STOP=1 --username=postgres --dbname=postgres <<'SQL'
\getenv registry REGISTRY_PASSWORD
\getenv training TRAINING_PASSWORD
\getenv drift DRIFT_PASSWORD
\getenv mlflow MLFLOW_PASSWORD
CREATE ROLE registry LOGIN PASSWORD :'registry';
CREATE ROLE training LOGIN PASSWORD :'training';
CREATE ROLE drift LOGIN PASSWORD :'drift';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
CREATE DATABASE registry OWNER registry;
CREATE DATABASE training OWNER training;
CREATE DATABASE drift OWNER drift;
CREATE DATABASE mlflow OWNER mlflow;
REVOKE ALL ON DATABASE registry, training, drift, mlflow FROM PUBLIC;
SQL
