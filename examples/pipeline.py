# SPDX-License-Identifier: Apache-2.0
"""A frame with text and holes, through scikit-learn's ColumnTransformer, into our classifier, in one pipeline."""

# needs: pandas
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import hotloop as hl


def rides(n: int = 1500) -> tuple[pd.DataFrame, pd.Series]:
    """Trips of a bicycle hire, and whether the rider came back within the hour."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "km": rng.gamma(2.0, 3.0, n),
            "temperature": rng.normal(15, 8, n),
            "weather": rng.choice(["sun", "cloud", "rain"], n, p=[0.5, 0.3, 0.2]),
            "station": rng.choice(["harbour", "museum", "park", "university"], n),
        }
    )
    hurry = -0.4 * frame["km"] + (frame["weather"] == "rain") * 2.0 + (frame["station"] == "university") * 1.5
    back = (hurry + 1.5 + rng.logistic(0, 0.5, n) > 0).map({True: "yes", False: "no"})
    frame.loc[rng.random(n) < 0.1, "temperature"] = np.nan  # the sensor fails now and then
    frame.loc[rng.random(n) < 0.05, "weather"] = None
    return frame, back


frame, back = rides()
train_X, test_X, train_y, test_y = train_test_split(frame, back, stratify=back, random_state=0)
columns = ColumnTransformer(
    [
        ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["km", "temperature"]),
        ("text", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["weather", "station"]),
    ]
)
network = hl.MLPClassifier((32,), learning_rate_init=0.005, early_stopping=True, random_state=0)
search = GridSearchCV(make_pipeline(columns, network), {"mlpclassifier__alpha": [1e-4, 1e-1]}, cv=3)
search.fit(train_X, train_y)
print(f"best {search.best_params_}, test accuracy {search.score(test_X, test_y):.3f}")
print(pd.crosstab(test_y, search.predict(test_X), rownames=["truth"], colnames=["prediction"]))
